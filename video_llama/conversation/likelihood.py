"""How likely a model finds given answers: the sum of the log-probabilities of their tokens.

Shapes: K answers, S tokens of the longest, W vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice, takewhile
from typing import Any, NamedTuple

import torch
from torch import Tensor

from video_llama.common.errors import PromptTooLong, VideoLlamaError
from video_llama.common.types import IGNORE_LABEL, MediaGroup
from video_llama.conversation.oom import within_memory
from video_llama.conversation.prefill import MediaPrefixes, Prompt, prefill, prefix_length
from video_llama.conversation.row_cache import KeysValues, prompt_cache
from video_llama.models.decoder.transformers_internals import takes_rows


class AnsweredPrompt(NamedTuple):
    """A prompt with an answer, tokenised together, as in training."""

    input_ids: Sequence[int]
    """Token ids with slot ids among them."""
    labels: Sequence[int]
    """The ids of the answer's tokens and of its end symbol; IGNORE_LABEL elsewhere."""
    media: Sequence[MediaGroup]
    """What fills the slots, of row 0."""


class Likelihood(NamedTuple):
    """How likely an answer is."""

    log_likelihood: float
    """Natural logarithm of the probability that the model gives exactly this answer."""
    n_tokens: int
    """Tokens of the answer, with its end symbol."""

    @property
    def per_token(self) -> float:
        """The mean over tokens."""
        return self.log_likelihood / self.n_tokens


class AnswerScorer:
    """Computes likelihoods of answers, with the keys and values of a prompt shared by its answers.

    Those of its media are shared by consecutive questions on the same media (see ``MediaPrefixes``). All answers to a prompt
    run as one batch, and nothing else is in it: the numbers do not depend on which other questions are asked. The weights must not
    change while it is used.

    Args:
        model: a ``ChatModel``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._prefixes = MediaPrefixes(max_prefixes=1)
        self._shares = takes_rows(model.decoder.lm)

    @torch.no_grad()
    @within_memory
    def __call__(self, answers: Sequence[AnsweredPrompt]) -> list[Likelihood]:
        """Return the likelihood of each answer to one prompt.

        Args:
            answers: with the same media.
        Raises:
            PromptTooLong: one does not fit into the decoder's context.
            VideoLlamaError: an answer is empty.
            OutOfMemory: fewer answers at once may fit.
        """
        longest, room = max(len(answer.input_ids) for answer in answers), self._model.decoder.max_context
        if longest > room:
            raise PromptTooLong(
                f"a prompt of {longest} tokens, with its longest option, exceeds the decoder's context of {room} tokens. Ask a "
                "shorter question, or show fewer files."
            )
        if any(all(label == IGNORE_LABEL for label in answer.labels) for answer in answers):
            raise VideoLlamaError("an option is empty")
        if not self._shares:
            return [self._alone(answer) for answer in answers]
        n = _n_shared(answers)
        row, first = self._shared_part(Prompt(answers[0].input_ids[:n], answers[0].media))
        return self._continued(row, first, [(answer.input_ids[n:], answer.labels[n:]) for answer in answers])

    def _shared_part(self, prompt: Prompt) -> tuple[KeysValues, Tensor]:
        """Return the keys and values of what all answers follow, and the logits of the token after it, float[W].

        The media are computed on their own, so that the result does not depend on which question on them came first.
        """
        n = prefix_length(prompt.input_ids)
        if n and self._prefixes.get(prompt) is None:
            (row,), _ = prefill(self._model, [prompt._replace(input_ids=prompt.input_ids[:n])], [None])
            self._prefixes.put(prompt, row)
        (row,), logits = prefill(self._model, [prompt], [self._prefixes.get(prompt)])
        return row, logits[0]

    def _continued(
        self, row: KeysValues, first: Tensor, rests: Sequence[tuple[Sequence[int], Sequence[int]]]
    ) -> list[Likelihood]:
        """Return the likelihood of each rest, ids and labels, behind a shared part."""
        lm, n, longest = self._model.decoder.lm, row[0][0].shape[1], max(len(ids) for ids, _ in rests)
        logits = first.expand(len(rests), 1, -1)
        if longest > 1:
            input_ids = torch.zeros(len(rests), longest - 1, dtype=torch.int64)  # the last token is only predicted
            for k, (ids, _) in enumerate(rests):
                input_ids[k, : len(ids[:-1])] = torch.tensor(ids[:-1])
            out = lm(
                input_ids=input_ids.to(lm.device),
                attention_mask=torch.ones(len(rests), n + longest - 1, dtype=torch.int64, device=lm.device),
                position_ids=torch.arange(n, n + longest - 1, device=lm.device).expand(len(rests), -1),
                past_key_values=prompt_cache([row] * len(rests), n),
                use_cache=True,
            )
            logits = torch.cat([logits, out.logits], dim=1)
        return [_likelihood(logits[k, : len(labels)], labels) for k, (_, labels) in enumerate(rests)]

    def _alone(self, answer: AnsweredPrompt) -> Likelihood:
        """Return the likelihood of an answer from one forward pass, for decoders without shared keys and values."""
        model = self._model
        lm = model.decoder.lm
        input_ids = torch.tensor([list(answer.input_ids)], device=lm.device)
        embeds = model.embed_prompt(input_ids, [group.mapped(lambda t: t.to(lm.device)) for group in answer.media])
        logits = lm(inputs_embeds=embeds.to(lm.dtype), use_cache=False).logits[0, :-1]
        return _likelihood(logits, answer.labels[1:])


def _n_shared(answers: Sequence[AnsweredPrompt]) -> int:
    """Return the number of first tokens that all answers share, up to the first one that is scored."""
    context = min(next(n for n, label in enumerate(a.labels) if label != IGNORE_LABEL) for a in answers)
    columns = islice(zip(*(answer.input_ids for answer in answers), strict=False), context)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _likelihood(logits: Tensor, labels: Sequence[int]) -> Likelihood:
    """Return the likelihood of labels, some of which may be IGNORE_LABEL, from float[S, W]."""
    targets = torch.tensor([*labels], device=logits.device)
    total = torch.nn.functional.cross_entropy(logits.double(), targets, ignore_index=IGNORE_LABEL, reduction="sum")
    return Likelihood(-total.item(), sum(label != IGNORE_LABEL for label in labels))
