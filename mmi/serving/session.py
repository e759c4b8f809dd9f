"""A conversation with a network in which nothing that was read or made is computed again.

Keys and values, hidden states, visual tokens, pyramids and their projections stay from turn to turn
(`mmi.models.generation.InterleavedState`). What is appended is read when something is asked for, in one pass together
with the last token and the last picture that were made.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from mmi.data.images import to_rgb
from mmi.inference import Generator, to_picture
from mmi.models.generation import DrawProgress, GenerationSettings, InterleavedState
from mmi.models.image_sampling import ImageSampling, Progress
from mmi.models.text_decoding import TextDecoding
from mmi.serving.cancelling import numbered, stop_if, watched
from mmi.serving.items import Cancelled, ContextFullError, GenerationCancelled, OnText, SessionError, SessionItem
from mmi.serving.stretch import Stretch, encoder_pixels, next_stretch
from mmi.serving.text_stream import TextStream

__all__ = ["Cancelled", "ContextFullError", "GenerationCancelled", "OnText", "Session", "SessionError", "SessionItem"]


class Session:
    """Append texts and pictures, ask for text or a picture, go on; save, restore and fork.

    Every request is done or not done: after an error or a cancellation the session is as it was before. A session is
    used by one thread at a time; many sessions may share one generator if their requests take turns.

    Args:
        generator: Network and tokenizer.
        settings: How texts are written and pictures drawn where a request does not say. Picture ``k`` of the session
            is drawn with ``settings.seed + k``; sampled texts draw from ``settings.seed`` too.

    Example:
        ::

            session = Session(Generator.load("runs/demo"))
            session.append("Cleo is in the town.")
            picture = session.ask_image()
            session.append("Then")
            text = session.ask_text(on_text=lambda new: print(new, end=""))
    """

    def __init__(self, generator: Generator, settings: GenerationSettings | None = None) -> None:
        self.generator = generator
        self.settings = settings or GenerationSettings()
        self._state = InterleavedState(generator.network)
        self._random = torch.Generator(device=generator.device).manual_seed(self.settings.seed)
        self._items: list[SessionItem] = []
        self._n_read = 0  # items that the state has read
        self._unread: list[int] = []  # generated ids that the state has not read: the last one of a text
        self._expects_image = False
        self._ended = False
        self._picture_begun = False  # the <BoI> of the first unread item has been read
        self._forgotten: Stretch | None = None  # what was read and is to be read once more

    @property
    def items(self) -> tuple[SessionItem, ...]:
        """Everything appended and made so far, in reading order."""
        return tuple(self._items)

    @property
    def token_ids(self) -> list[int]:
        """Ids read so far; what is pending is not among them."""
        return self._forgotten.ids if self._forgotten is not None else self._state.language.text_ids[0].tolist()

    @property
    def n_tokens(self) -> int:
        """Tokens of the context so far, what is not read yet included; pictures count with their placeholders."""
        return len(self.token_ids) + len(self._stretch().ids)

    @property
    def max_tokens(self) -> int:
        """Most tokens the context may have: ``language.max_positions``."""
        return self.generator.network.config.language.max_positions

    @property
    def n_drawn(self) -> int:
        """Pictures drawn so far."""
        return sum(item.generated and not item.is_text for item in self._items)

    @property
    def expects_image(self) -> bool:
        """Whether the last text ended with an image start: the model wants to draw next."""
        return self._expects_image

    @property
    def ended(self) -> bool:
        """Whether the last text ended with ``</s>``: the model holds its answer, or the document, for complete."""
        return self._ended

    def append(self, item: str | Image.Image) -> None:
        """Put a text or a picture at the end; it is read with the next request.

        A text after one that the model ended with ``</s>`` is a new turn behind that mark, as in the conversations of
        training; otherwise neighbouring texts are joined by a space.

        Raises:
            SessionError: If the text is empty or the item is neither text nor picture.
        """
        if isinstance(item, str):
            if not item:
                raise SessionError("the text is empty; append a text with at least one character.")
            if self._ended and self._items and self._items[-1].is_text:
                self._items[-1] = replace(self._items[-1], closed=True)
            self._items.append(SessionItem(item))
        elif isinstance(item, Image.Image):
            self._items.append(SessionItem(to_rgb(item).copy()))
        else:
            raise SessionError(f"a {type(item).__name__} was appended; expected a text or a PIL picture.")
        self._expects_image = self._ended = False

    def close_turn(self) -> None:
        """Put ``</s>`` behind the last text, however it ended: a turn is over, as in the conversations of training.

        It is read with what comes behind it. Behind a picture, or in an empty session, nothing happens.
        """
        if self._items and self._items[-1].is_text:
            self._items[-1] = replace(self._items[-1], closed=True)
            self._expects_image = self._ended = False

    def ask_text(
        self,
        decoding: TextDecoding | None = None,
        on_text: OnText | None = None,
        cancelled: Cancelled | None = None,
    ) -> str:
        """Write on until ``</s>``, an image start or the most tokens; the text becomes part of the context.

        Args:
            decoding: How; None is that of the settings.
            on_text: Told new text while it is written (with beams: at the end).
            cancelled: Asked between tokens.

        Returns:
            The text, stripped; empty if the model wants to draw or to end at once.

        Raises:
            ContextFullError: If there is no room for another token. A text is cut where the context ends.
            GenerationCancelled: If ``cancelled`` said so.
        """
        with self._whole_or_nothing(cancelled):
            text = self._write(decoding or self.settings.text, on_text, cancelled, may_end=True)
        return text

    def ask_image(
        self,
        sampling: ImageSampling | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Image.Image:
        """Draw the picture that comes next; it becomes part of the context.

        Args:
            sampling: How; None is that of the settings.
            seed: None is the settings' seed plus the number of pictures drawn before.
            progress: Told after each sampling step: steps done, steps in all.
            cancelled: Asked between sampling steps.

        Returns:
            RGB, of the image decoder's size.

        Raises:
            SessionError: If the network has no image decoder.
            ContextFullError: If the context is too long for the image decoder or has no room for the picture.
            GenerationCancelled: If ``cancelled`` said so.
        """
        decoder = self.generator.network.image_decoder
        if decoder is None:
            raise SessionError("this network has no image decoder, so it can't draw; ask for text.")
        seed = self.settings.seed + self.n_drawn if seed is None else seed
        with self._whole_or_nothing(cancelled):
            boi = self.generator.tokenizer.special.image_start
            n_placeholders = self.generator.network.config.tokens_per_image
            self._read(then=[boi], room_for=n_placeholders)
            length = self._state.language.text_ids.shape[1]
            if length > len(decoder.positions):
                raise ContextFullError(
                    f"a picture would be drawn from {length} tokens of context, but image_decoder.n_context_positions "
                    f"is {len(decoder.positions)}; start a new session."
                )
            place = torch.tensor([length - 1], device=self.generator.device)
            told = watched(progress, cancelled)
            (pixels,) = self._state.draw(torch.zeros_like(place), place, sampling or self.settings.image, [seed], told)
            picture = to_picture(pixels)
            self._items.append(SessionItem(picture, generated=True, seed=seed))
            self._picture_begun = True
            self._expects_image = self._ended = False
        return picture

    def go_on(
        self,
        settings: GenerationSettings | None = None,
        *,
        on_text: OnText | None = None,
        progress: DrawProgress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Iterator[str | Image.Image]:
        """Go on with texts and pictures in turn until the end, yielding each when it is ready.

        Args:
            settings: How, how many pictures, and where random numbers start anew, so that the pieces are those of
                ``Generator.stream``; None is the session's own settings and its random numbers go on.
            on_text: See ``ask_text``.
            progress: Told after each sampling step: number of the new picture, steps done, steps in all.
            cancelled: Asked between tokens and sampling steps.

        Raises:
            ContextFullError: See ``ask_text`` and ``ask_image``; pieces yielded before stay.
            GenerationCancelled: If ``cancelled`` said so; pieces yielded before stay.
        """
        own = self.settings if settings is None else settings
        # Random numbers start anew with the first piece, and only if that comes.
        anew = None if settings is None else torch.Generator(device=self.generator.device).manual_seed(settings.seed)
        first = own.seed + (self.n_drawn if settings is None else 0)
        can_draw = self.generator.network.image_decoder is not None
        n_drawn = 0
        while True:
            if not self._expects_image:
                must_draw = can_draw and n_drawn < own.min_images
                with self._whole_or_nothing(cancelled):
                    self._random, anew = anew or self._random, None
                    text = self._write(own.text, on_text, cancelled, may_end=not must_draw)
                    self._expects_image |= must_draw
                if text:
                    yield text
            if not self._expects_image or n_drawn == own.max_images:
                return
            with self._whole_or_nothing(None):
                self._random, anew = anew or self._random, None
                picture = self.ask_image(own.image, first + n_drawn, numbered(progress, n_drawn), cancelled)
            yield picture
            n_drawn += 1

    def fork(self) -> Session:
        """Return a session that goes on from here on its own; what was computed is shared, nothing is copied."""
        other = copy.copy(self)
        other._state = self._state.fork()
        other._random = torch.Generator(device=self.generator.device)
        other._random.set_state(self._random.get_state())
        other._items = list(self._items)
        other._unread = list(self._unread)
        return other

    def release(self) -> None:
        """Give the memory of what was computed back; the next request reads everything once more, in one pass.

        What follows is the same up to rounding. Forks that share what was computed keep it.
        """
        if self._forgotten is None and self.token_ids:
            self._forgotten = self._to_read_again(self.token_ids, self._known_starts())
            self._state = InterleavedState(self.generator.network)

    def save(self, folder: str | Path) -> None:
        """Write ``session.json`` and ``session.safetensors``; see `mmi.serving.session_files`."""
        from mmi.serving.session_files import SavedSession, write_session

        saved = SavedSession(
            settings=self.settings,
            items=self.items,
            n_read=self._n_read,
            ids=self.token_ids,
            image_starts=self._known_starts(),
            unread=self._unread,
            expects_image=self._expects_image,
            ended=self._ended,
            picture_begun=self._picture_begun,
            random_state=self._random.get_state(),
        )
        write_session(Path(folder), saved, self.generator)

    @classmethod
    def restore(cls, generator: Generator, folder: str | Path) -> Session:
        """Rebuild a saved session; the next request reads its tokens and pictures once more, in one pass.

        Raises:
            SessionError: If the folder holds no session, or one of another network or tokenizer.
        """
        from mmi.serving.session_files import read_session

        saved = read_session(Path(folder), generator)
        session = cls(generator, saved.settings)
        session._items = list(saved.items)
        session._n_read = saved.n_read
        session._unread = saved.unread
        session._expects_image, session._ended = saved.expects_image, saved.ended
        session._picture_begun = saved.picture_begun
        # Devices of another kind have other random numbers, which then start from the seed.
        if len(saved.random_state) == len(session._random.get_state()):
            session._random.set_state(saved.random_state)
        if saved.ids:
            session._forgotten = session._to_read_again(saved.ids, saved.image_starts)
        return session

    def _write(
        self, decoding: TextDecoding, on_text: OnText | None, cancelled: Cancelled | None, *, may_end: bool
    ) -> str:
        """Read what is pending, write a text, and remember how it ended."""
        tokenizer = self.generator.tokenizer
        boi, eos = tokenizer.special.image_start, tokenizer.special.eos
        self._read()
        room = self.max_tokens - len(self.token_ids)
        if room < decoding.max_new_tokens:
            decoding = replace(decoding, max_new_tokens=room, min_new_tokens=min(decoding.min_new_tokens, room))
        stream = TextStream(tokenizer, on_text, (boi, eos))

        def step(ids: list[int]) -> None:
            stop_if(cancelled)
            for token_id in ids:
                stream.add(token_id)

        (ids,) = self._state.write(decoding, may_end=may_end, generator=self._random, on_step=step)
        text = stream.end(ids)
        self._expects_image, self._ended = ids[-1] == boi, ids[-1] == eos
        # The others were read while they were written.
        self._unread = [] if self._expects_image or self._ended else ids[-1:]
        if text:
            self._items.append(SessionItem(text, generated=True))
            self._n_read = len(self._items)
        return text

    def _read(self, then: Sequence[int] = (), room_for: int = 1) -> None:
        """Read what is pending and the ids in ``then``, if tokens that follow have room.

        Raises:
            ContextFullError: If there is none.
        """
        pending = self._stretch()
        stretch = replace(pending, ids=[*pending.ids, *then])
        n_read = len(self.token_ids)
        needed = n_read + len(stretch.ids) + room_for
        if needed > self.max_tokens:
            raise ContextFullError(
                f"the context is full: {n_read + len(stretch.ids)} tokens and {room_for} more asked for, but the "
                f"language model has {self.max_tokens} positions (language.max_positions); start a new session, or "
                "ask for less."
            )
        if stretch.ids or self._forgotten is not None:
            self._extend(stretch)
        self._n_read = len(self._items)
        self._unread = []
        self._picture_begun = False

    def _extend(self, stretch: Stretch) -> None:
        if self._forgotten is not None:
            stretch = self._forgotten.followed_by(stretch)
            self._forgotten = None
        device = self.generator.device
        starts = torch.tensor(stretch.starts, dtype=torch.int64, device=device)
        views = torch.stack(stretch.views).to(device) if stretch.views else None
        ids = torch.tensor([stretch.ids], device=device)
        self._state.read(ids, None, views, torch.zeros_like(starts), starts)

    def _stretch(self) -> Stretch:
        """Turn what is pending into ids."""
        unread = self._unread if self.token_ids else [self.generator.tokenizer.special.bos]
        known, pending = self._items[: self._n_read], self._items[self._n_read :]
        return next_stretch(self.generator, known, pending, unread, picture_begun=self._picture_begun)

    def _to_read_again(self, ids: list[int], starts: list[int]) -> Stretch:
        pictures = [item for item in self._items[: self._n_read] if not item.is_text]
        return Stretch(ids, starts, [encoder_pixels(self.generator, item) for item in pictures])

    def _known_starts(self) -> list[int]:
        """Return where the pictures among them begin."""
        return self._forgotten.starts if self._forgotten is not None else self._state.image_starts

    @contextmanager
    def _whole_or_nothing(self, cancelled: Cancelled | None) -> Iterator[None]:
        """Put everything back where a request fails or is cancelled."""
        before = self.fork()
        try:
            stop_if(cancelled)
            yield
        except BaseException:
            self.__dict__.update(before.__dict__)
            raise
