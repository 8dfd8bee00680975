"""Grammars for the answer: a JSON schema, a regular expression or a choice becomes a mask over the vocabulary.

In: StructuredOutputsParams and what each token spells. Out: `engine.request.Grammar` objects, one a completion. The
engine never sees the schema, and this module never sees the model. llguidance does the parsing; its own words about a
wrong schema reach the user.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from tusi.backends.protocol import ToolChoice
from tusi.backends.tool_grammar import tool_grammar
from tusi.chat.tokenizer import Tokenizer
from tusi.core.errors import RequestError
from tusi.engine.sampling_params import StructuredOutputsParams

# Where JSON allows blanks: one space, or a new line and its indentation. Without a bound, a model that is unsure may
# print blanks for ever (vllm-project/vllm#52011).
JSON_WHITESPACE = r"\x20|\n[\x20\t]{0,40}"

# llguidance's mark for a token that is a control token and spells no text; it can then match no part of a grammar.
_CONTROL_MARK = b"\xff"


class MatcherGrammar:
    """An engine.request.Grammar: first exactly the lead tokens, then whatever the llguidance matcher allows.

    lead_token_ids: the empty line that the model writes between its reasoning and its answer. It stands in no schema,
    so it is not the matcher's business.
    """

    def __init__(
        self, matcher: LLMatcher, *, vocab_size: int, eos_token_ids: Collection[int], lead_token_ids: Sequence[int] = ()
    ) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._eos_token_ids = frozenset(eos_token_ids)
        self._lead = deque(lead_token_ids)

    def skip_lead(self) -> None:
        """The lead was written already (with a forced close): the answer comes next."""
        self._lead.clear()

    def allowed_mask(self) -> bytes | None:
        """Little-endian bit mask of the tokens that may come next."""
        if self._lead:
            return (1 << self._lead[0]).to_bytes(-(-self._vocab_size // 8), "little")
        return bytes(self._matcher.compute_bitmask())

    def accept(self, token_id: int) -> bool:
        """Take note of a token; False (and no change) if it does not fit."""
        if self._lead:
            return token_id == self._lead[0] and self._lead.popleft() == token_id
        if token_id in self._eos_token_ids:
            return bool(self._matcher.is_accepting())
        return bool(self._matcher.try_consume_tokens([token_id]) == 1)

    def is_finished(self) -> bool:
        """True once only the end of the sequence may follow."""
        return not self._lead and bool(self._matcher.is_stopped())


class _Vocabulary:
    """The vocabulary as llguidance's TokenizerWrapper wants to see it."""

    def __init__(self, tokens: list[bytes], control_token_ids: Collection[int], tokenizer: Tokenizer) -> None:
        self.tokens = tokens
        self.special_token_ids = sorted(control_token_ids)
        self.eos_token_id = tokenizer.eos_token_id
        self.bos_token_id = tokenizer.bos_token_id
        self._tokenizer = tokenizer

    def __call__(self, text: bytes) -> list[int]:
        return self._tokenizer.encode(text.decode("utf-8"), allow_special=False)


class GrammarCompiler:
    """Makes Grammars over one vocabulary. The vocabulary is read at the first use: most processes never need it.

    vocab_size: width of the model's logits (ids past the tokenizer's own are never allowed).
    eos_token_ids: what ends a completion. tag_token_ids: marks that parsers look for (`</think>`, `<tool_call>`); with
    the tokenizer's special tokens they may not stand in a constrained answer, not even inside a JSON string.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, vocab_size: int, eos_token_ids: Sequence[int], tag_token_ids: Sequence[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(eos_token_ids)
        self._control_token_ids = frozenset((*tokenizer.special_token_ids, *eos_token_ids, *tag_token_ids))
        self._ll_tokenizer: LLTokenizer | None = None
        self._lock = threading.Lock()

    def compile(
        self, params: StructuredOutputsParams, *, count: int = 1, lead_token_ids: Sequence[int] = ()
    ) -> list[MatcherGrammar]:
        """Compile into count independent grammars. Raises RequestError with llguidance's words if it cannot."""
        kind = next(name for name in ("json", "regex", "choice") if getattr(params, name) is not None)
        what = f"structured_outputs.{kind}"
        return self._matchers(_grammar_text(params), what, _ADVICE[kind], count=count, lead_token_ids=lead_token_ids)

    def compile_tools(
        self,
        tools: Sequence[Mapping[str, Any]],
        *,
        choice: ToolChoice,
        parallel: bool,
        answer: StructuredOutputsParams | None,
        count: int = 1,
        lead_token_ids: Sequence[int] = (),
    ) -> list[MatcherGrammar]:
        """As compile, for an answer of tool calls; see tool_grammar. Raises RequestError."""
        if answer is not None:
            _grammar_text(answer)  # with the words of its own errors
        text = tool_grammar(
            tools,
            choice=choice,
            parallel=parallel,
            answer=answer,
            token_of=self._tokenizer.token_to_id,
            whitespace=JSON_WHITESPACE,
        )
        return self._matchers(text, "tools", _ADVICE["tools"], count=count, lead_token_ids=lead_token_ids)

    def _matchers(
        self, grammar: str, what: str, advice: str, *, count: int, lead_token_ids: Sequence[int]
    ) -> list[MatcherGrammar]:
        matcher = LLMatcher(self._vocabulary(), grammar, log_level=0)
        if matcher.is_error():
            raise RequestError(f"{what} cannot be used: {matcher.get_error().strip()}. {advice}", param=what)
        return [
            MatcherGrammar(
                matcher.deep_copy(),
                vocab_size=self._vocab_size,
                eos_token_ids=self._eos_token_ids,
                lead_token_ids=lead_token_ids,
            )
            for _ in range(count)
        ]

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._ll_tokenizer is None:
                tokens = [self._spell(token_id) for token_id in range(self._vocab_size)]
                wrapper = TokenizerWrapper(_Vocabulary(tokens, self._control_token_ids, self._tokenizer))
                self._ll_tokenizer = LLTokenizer(wrapper, eos_token=list(self._eos_token_ids))
            return self._ll_tokenizer

    def _spell(self, token_id: int) -> bytes:
        if token_id in self._control_token_ids:
            return _CONTROL_MARK + b"<%d>" % token_id
        return self._tokenizer.id_to_bytes(token_id) or b""


_ADVICE = {
    "json": "Correct the schema, or drop the keyword it names and check that part yourself.",
    "regex": "Use Rust regex syntax (no look-around, no back-references).",
    "choice": "Give a list of different, non-empty strings.",
    "tools": "Correct the schema it means, or set tool_choice to 'auto' and leave out response_format.",
}


def _grammar_text(params: StructuredOutputsParams) -> str:
    if params.json is not None:
        return str(
            LLMatcher.grammar_from_json_schema(
                _json_schema(params.json), overrides={"whitespace_pattern": JSON_WHITESPACE}
            )
        )
    if params.regex is not None:
        return str(LLMatcher.grammar_from_regex(params.regex))
    return str(LLMatcher.grammar_from_lark(_choice_grammar(params.choice or ())))


def _json_schema(text: str) -> str:
    try:
        schema = json.loads(text)
    except json.JSONDecodeError as error:
        raise RequestError(
            f"structured_outputs.json is not JSON ({error}). Give a JSON schema as text, or '{{}}' for any object.",
            param="structured_outputs.json",
        ) from error
    if not isinstance(schema, dict):
        raise RequestError(
            f"structured_outputs.json is a JSON {type(schema).__name__}, not an object. Give a JSON schema, or '{{}}'.",
            param="structured_outputs.json",
        )
    # OpenAI's json_object mode promises an object; the empty schema alone would allow `3`.
    return json.dumps(schema if schema else {"type": "object"})


def _choice_grammar(choices: tuple[str, ...]) -> str:
    if not choices or not all(choices):
        raise RequestError(
            f"structured_outputs.choice is {list(choices)!r}. {_ADVICE['choice']}", param="structured_outputs.choice"
        )
    return "start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices)
