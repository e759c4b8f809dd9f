"""Few-shot documents: several pairs become one document, so that a later pair sees the pictures before it (SPEC 3.3).

The official system means to do this with probability 0.25 and 2 to 8 pairs, but never does because of a mistake (D1),
so that probability 0, the default, is what it really does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mmi.data.document import Document
from mmi.data.draws import draws
from mmi.data.encode import EncodedDocument, EncodingRules, encode_document
from mmi.tokens import Tokenizer


@dataclass(frozen=True)
class Merging:
    """Decide how many pairs in a row become one document, and make it.

    The document is written as one: ``<s>`` pair pair ... ``</s>``. What each token sees and what is learned follows
    from that as for any document.

    Args:
        probability: How often a pair opens a group.
        sizes: Fewest and most pairs of a group, all equally likely.
        max_images: Pictures a row can hold.
        key: What the choices depend on besides the place of the first pair.
    """

    probability: float
    sizes: tuple[int, int]
    max_images: int
    key: tuple[int | str, ...]

    def size(self, address: Sequence[int]) -> int:
        """Return how many pairs the one at this address opens a group of; 1 leaves it alone.

        Example:
            >>> always = Merging(1.0, (2, 3), 30, (0, "pairs"))
            >>> {always.size((0, position)) for position in range(20)}
            {2, 3}
            >>> Merging(0.0, (2, 3), 30, (0, "pairs")).size((0, 0))
            1
        """
        if self.probability == 0:
            return 1
        random = draws("merge", *self.key, *address)
        if random.random() >= self.probability:
            return 1
        least, most = self.sizes
        return least + int(random.random() * (most - least + 1))

    def merged(
        self, documents: Sequence[Document], tokenizer: Tokenizer, rules: EncodingRules
    ) -> EncodedDocument | None:
        """Return pairs as one document, or None where no row could hold it.

        Args:
            documents: Two or more, in reading order.
            tokenizer: Turns text into ids.
            rules: Those of the source.
        """
        if sum(document.n_images for document in documents) > self.max_images:
            return None
        left_out: Counter[str] = Counter()
        for document in documents:
            counts = document.metadata.get("left_out")
            left_out.update(counts if isinstance(counts, Mapping) else {})
        whole = Document(
            "+".join(document.id for document in documents),
            documents[0].source,
            tuple(item for document in documents for item in document.items),
            {"left_out": dict(left_out)} if left_out else {},
        )
        encoded = encode_document(whole, tokenizer, replace(rules, max_length=None))
        return encoded if rules.max_length is None or len(encoded) <= rules.max_length else None
