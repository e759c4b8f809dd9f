"""The benchmarks, listed by hand; each is a frozen dataclass whose fields are its settings (see ``protocol``)."""

from __future__ import annotations

from .ade20k import ADE20K
from .coco_caption import COCOCaption
from .coco_image import COCOImage
from .flickr30k import Flickr30k
from .flintstones import Flintstones
from .gqa import GQA
from .image2paragraph import Image2Paragraph
from .interleaved_world import InterleavedWorld
from .joint_story import JointStory
from .ln_coco_image import LNCOCOImage
from .micro_drawing import MicroDrawing
from .micro_image_loss import MicroImageLoss
from .micro_quiz import MicroQuiz
from .nocaps import NoCaps
from .okvqa import OKVQA
from .pororo import Pororo
from .protocol import Answer, Scored, Seen, Task
from .refcoco import RefCOCO
from .textvqa import TextVQA
from .visdial import VisDial
from .vist import VIST
from .vizwiz import VizWiz
from .vqav2 import VQAv2

TASKS: dict[str, type[Task]] = {
    "coco_caption": COCOCaption,
    "flickr30k": Flickr30k,
    "nocaps": NoCaps,
    "image2paragraph": Image2Paragraph,
    "vqav2": VQAv2,
    "okvqa": OKVQA,
    "textvqa": TextVQA,
    "vizwiz": VizWiz,
    "gqa": GQA,
    "refcoco": RefCOCO,
    "visdial": VisDial,
    "coco_image": COCOImage,
    "ln_coco_image": LNCOCOImage,
    "ade20k": ADE20K,
    "vist": VIST,
    "pororo": Pororo,
    "flintstones": Flintstones,
    "interleaved_world": InterleavedWorld,
    "joint_story": JointStory,
    "micro_quiz": MicroQuiz,
    "micro_drawing": MicroDrawing,
    "micro_image_loss": MicroImageLoss,
}

__all__ = ["TASKS", "Answer", "Scored", "Seen", "Task"]
