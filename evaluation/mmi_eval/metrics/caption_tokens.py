"""Cut captions into the tokens that CIDEr and BLEU compare, for a whole corpus at once.

Protocols:

- ``ptb``: the COCO toolkit's. The Stanford tokenizer of the package pycocoevalcap (a jar, needs Java), lower case, then
  its list of punctuation removed. Round brackets stay, as ``-lrb-`` and ``-rrb-``: the toolkit's list has them in
  capitals, which lower-cased tokens never equal.
- ``java-free``: our own rules for the same, in ``java_free_tokens``.
- ``whitespace``: texts that are tokens already, cut at spaces.

Scores under different names are not mixed.

Document frequencies come from the images scored, so a corpus holds the images that have a prediction and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .java_free_tokens import tokenize_java_free
from .toolkit_jars import ToolkitJar

Tokens = tuple[str, ...]
K = TypeVar("K", bound=Hashable)

PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
"""What the toolkit removes; its bracket names are in capitals and so remove nothing."""

PTB_JAR = ToolkitJar(
    'the caption protocol "ptb"',
    "tokenizer/stanford-corenlp-3.4.1.jar",
    'score with the protocol "java-free", which needs neither (tokens: java-free, or --tokens java-free)',
)


@dataclass(frozen=True)
class CaptionCorpus:
    """Tokens of predictions and references of the images that have a prediction.

    Args:
        protocol: How they were cut.
        image_ids: In the order of the predictions.
        predictions: One per image.
        references: The references of each image.
        n_without_prediction: Images with references that were left out because nothing was predicted for them.
    """

    protocol: str
    image_ids: tuple[Hashable, ...]
    predictions: tuple[Tokens, ...]
    references: tuple[tuple[Tokens, ...], ...]
    n_without_prediction: int = 0

    def part(self, image_ids: Sequence[Hashable]) -> CaptionCorpus:
        """Return some of the images as a corpus of their own, with its own document frequencies.

        Raises:
            KeyError: If an image is not in the corpus.
        """
        rows = {image: row for row, image in enumerate(self.image_ids)}
        chosen = [rows[image] for image in image_ids]
        return CaptionCorpus(
            self.protocol,
            tuple(image_ids),
            tuple(self.predictions[row] for row in chosen),
            tuple(self.references[row] for row in chosen),
        )


def tokenize_ptb(captions: Sequence[str]) -> list[Tokens]:
    """Cut captions with the Stanford tokenizer; Java starts once for all of them.

    Raises:
        CaptionToolError: If Java or pycocoevalcap is missing, or the tokenizer fails.
    """
    # Java reads lines, and it also ends one where we do not: at any Unicode line break.
    lines = [" ".join(caption.split()) for caption in captions]
    options = ("-preserveLines", "-lowerCase", "-encoding", "utf-8")
    cut = PTB_JAR.run(("-cp", "JAR", "edu.stanford.nlp.process.PTBTokenizer"), options, lines)
    # At spaces only: "5 1/2" is one token with a hard space inside, which ROUGE-L keeps; CIDEr and BLEU cut it.
    return [tuple(token for token in line.split(" ") if token and token not in PUNCTUATION) for line in cut]


def apart(tokens: Tokens) -> Tokens:
    r"""Cut tokens at the hard spaces inside, as the toolkit's CIDEr and BLEU do when they split its joined lines.

    Example:
        >>> apart(("a", "5\N{NO-BREAK SPACE}1/2", "foot"))
        ('a', '5', '1/2', 'foot')
    """
    return tuple(" ".join(tokens).split())


def tokenize_whitespace(captions: Sequence[str]) -> list[Tokens]:
    """Cut captions at spaces and change nothing else, for files that are tokens already.

    Example:
        >>> tokenize_whitespace(["A cat , asleep"])
        [('A', 'cat', ',', 'asleep')]
    """
    return [tuple(caption.split()) for caption in captions]


CAPTION_PROTOCOLS: dict[str, Callable[[Sequence[str]], list[Tokens]]] = {
    "ptb": tokenize_ptb,
    "java-free": tokenize_java_free,
    "whitespace": tokenize_whitespace,
}


def tokenize_corpora(
    predictions: Mapping[str, Mapping[K, str]],
    references: Mapping[K, Sequence[str]],
    *,
    protocol: str,
) -> dict[str, CaptionCorpus]:
    """Cut several sets of predictions (a model, its baselines) and their common references in one go.

    Args:
        predictions: A caption per image, by the name of the set.
        references: Captions of each image.
        protocol: Name in ``CAPTION_PROTOCOLS``.

    Returns:
        A corpus per set, of the images that the set has predictions for.

    Raises:
        CaptionToolError: As ``tokenize_ptb``.
        KeyError: If the protocol is not known.
        ValueError: If a set is empty, or an image of it has no reference.
    """
    if protocol not in CAPTION_PROTOCOLS:
        raise KeyError(f'no caption protocol "{protocol}". Known: {", ".join(CAPTION_PROTOCOLS)}.')
    for name, captions in predictions.items():
        if not captions:
            raise ValueError(f'the captions "{name}" are none; there is nothing to score.')
        lost = [image for image in captions if not references.get(image)]
        if lost:
            raise ValueError(
                f'{len(lost)} images of "{name}" have no reference, such as {lost[0]!r}; score the split they are from.'
            )
    wanted = {image for captions in predictions.values() for image in captions}
    texts = {text for captions in predictions.values() for text in captions.values()}
    texts |= {text for image in wanted for text in references[image]}
    ordered = sorted(texts)
    tokens = dict(zip(ordered, CAPTION_PROTOCOLS[protocol](ordered), strict=True))
    return {
        name: CaptionCorpus(
            protocol,
            tuple(captions),
            tuple(tokens[text] for text in captions.values()),
            tuple(tuple(tokens[text] for text in references[image]) for image in captions),
            sum(image not in captions for image in references),
        )
        for name, captions in predictions.items()
    }


def tokenize_corpus(
    predictions: Mapping[K, str], references: Mapping[K, Sequence[str]], *, protocol: str
) -> CaptionCorpus:
    """Cut one set of predictions and the references of its images; see ``tokenize_corpora``."""
    return tokenize_corpora({"predictions": predictions}, references, protocol=protocol)["predictions"]


def first_sentence(caption: str) -> str:
    """Return the caption up to its first full stop, as the official code cuts COCO Karpathy captions.

    Example:
        >>> first_sentence("a cat on a mat. it sleeps")
        'a cat on a mat'
    """
    return caption.split(".")[0]
