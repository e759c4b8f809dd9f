"""The benchmarks, listed by hand; each is a frozen dataclass whose fields are its settings (see ``protocol``)."""

from __future__ import annotations

from .coco_caption import COCOCaption
from .micro_drawing import MicroDrawing
from .micro_image_loss import MicroImageLoss
from .micro_quiz import MicroQuiz
from .protocol import Answer, Scored, Seen, Task
from .refcoco import RefCOCO
from .vqav2 import VQAv2

TASKS: dict[str, type[COCOCaption | VQAv2 | RefCOCO | MicroQuiz | MicroDrawing | MicroImageLoss]] = {
    "coco_caption": COCOCaption,
    "vqav2": VQAv2,
    "refcoco": RefCOCO,
    "micro_quiz": MicroQuiz,
    "micro_drawing": MicroDrawing,
    "micro_image_loss": MicroImageLoss,
}

__all__ = ["TASKS", "Answer", "Scored", "Seen", "Task"]
