"""AutoModelForCausalLM: a loaded model with `generate`, under the names of Transformers, over the same engine.

As there, `generate` continues ids and gives ids back: it knows no thinking budget and stops no loops. What it does not
honour is a TypeError, never ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tusi.backends.hf.arrays import Array, as_array, check_device, is_dtype
from tusi.backends.hf.auto import check_device_map, check_ignored, weight_format
from tusi.backends.hf.batch import INPUT_KEYS, from_inputs
from tusi.backends.local.backend import LocalBackend
from tusi.backends.local.prompts import PreparedPrompt
from tusi.backends.local.stream import LocalStream
from tusi.core.errors import RequestError
from tusi.engine.config import EngineConfig
from tusi.engine.sampling_params import SamplingParams
from tusi.models.parameters import choose_format
from tusi.processing.types import ProcessedPrompt

# transformers' own default, kept because scripts rely on the length they get.
_DEFAULT_MAX_NEW_TOKENS = 20
# Settings of a sampled continuation, by the same names in SamplingParams.
_SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p")
# use_cache: the engine always keeps keys and values, and the answer is the same. synced_gpus: there is one process.
# tokenizer: transformers wants it for stop_strings; the model here has its own.
_HARMLESS = frozenset({"use_cache", "synced_gpus", "tokenizer"})


class Streamer(Protocol):
    """What transformers' streamers are: put() ids as they come, end() once."""

    def put(self, value: Any) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parameter:
    """Stands in for a weight where scripts ask `next(model.parameters()).device`."""

    device: str
    dtype: str


class AutoModelForCausalLM:
    """A loaded model. Use it in a `with` block or call close(); dropping it closes it too."""

    def __init__(self, backend: LocalBackend, dtype: str) -> None:
        self.backend = backend
        self.config = backend.frontend.config
        self.device = "cpu"
        self.dtype = dtype

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        max_model_len: int | None = None,
        engine_config: EngineConfig | None = None,
        **kwargs: Any,
    ) -> AutoModelForCausalLM:
        """Load a checkpoint. dtype (or torch_dtype): bfloat16, float32, int8, int4, auto. device_map: "auto" or "cpu".

        See `auto.IGNORED` for what else may be given. Raises CheckpointError, ConfigError or TypeError.
        """
        dtype = weight_format(kwargs)
        check_device_map(kwargs)
        check_ignored(kwargs, f"{cls.__name__}.from_pretrained")
        backend = LocalBackend.load(
            path, dtype=dtype, max_model_len=max_model_len, engine_config=engine_config or EngineConfig()
        )
        return cls(backend, choose_format(backend.frontend.config, dtype))

    def add_image_preprocess(self, processor: object) -> None:
        """Does nothing: pixels are normalised by the processor here. The quick-start of the model calls it."""

    def parameters(self) -> Iterator[Parameter]:
        """One stand-in, for scripts that ask the first parameter where the model lives."""
        yield Parameter(self.device, self.dtype)

    def to(self, *args: object, **kwargs: object) -> AutoModelForCausalLM:
        """This model; the device must be the CPU. Raises ConfigError for another, TypeError for a change of dtype."""
        if "dtype" in kwargs or any(is_dtype(arg) for arg in args):
            raise TypeError("a loaded model keeps its dtype; give dtype to from_pretrained")
        for device in (*args, *kwargs.values()):
            check_device(device)
        return self

    def eval(self) -> AutoModelForCausalLM:
        """This model: it is never in training mode."""
        return self

    def generate(
        self,
        inputs: Any = None,
        *,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        min_new_tokens: int = 0,
        do_sample: bool | None = None,
        repetition_penalty: float | None = None,
        num_return_sequences: int = 1,
        num_beams: int = 1,
        eos_token_id: int | Sequence[int] | None = None,
        pad_token_id: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        streamer: Streamer | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> Array:
        """Continue prompts. Returns ids [B * num_return_sequences, S + longest answer], padded on the right.

        inputs (or input_ids) and the processor's other arrays go in by name: generate(**inputs). Sampling settings that
        are not given come from the checkpoint's generation_config.json. seed: reproducible draws. Raises RequestError
        for arrays that contradict each other, TypeError for an option that is not honoured.
        """
        arrays = {key: kwargs.pop(key) for key in INPUT_KEYS if key in kwargs}
        if inputs is not None:
            _check_same(inputs, arrays.setdefault("input_ids", inputs))
        if "input_ids" not in arrays:
            raise RequestError(
                "there are no input_ids; pass the processor's arrays: generate(**inputs).", param="inputs"
            )
        if num_beams != 1:
            raise TypeError(f"num_beams={num_beams} is not honoured: there is no beam search here; leave it out")
        prompts = self._prompts(arrays)
        params = self._sampling_params(
            kwargs,
            do_sample=do_sample,
            repetition_penalty=repetition_penalty,
            max_tokens=_max_new_tokens(max_new_tokens, max_length, np.asarray(arrays["input_ids"]).shape[1]),
            min_tokens=min_new_tokens,
            n=num_return_sequences,
            stop=(stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings or ()),
            seed=seed,
        )
        if eos_token_id is not None:
            ends = (eos_token_id,) if isinstance(eos_token_id, int) else tuple(eos_token_id)
            params = replace(params, ignore_eos=True, stop_token_ids=ends)
        if streamer is not None and len(prompts) * num_return_sequences > 1:
            raise TypeError("a streamer shows one answer; give one prompt and num_return_sequences=1")
        streams = [self.backend.stream_prepared(_prepared(prompt), params) for prompt in prompts]
        answers = [answer for stream in streams for answer in _read(stream, params.n, streamer)]
        fill = self.config.pad_token_id if pad_token_id is None else pad_token_id
        return _join(np.repeat(np.asarray(arrays["input_ids"]), num_return_sequences, axis=0), answers, fill)

    def close(self) -> None:
        """Give back the engine's thread and memory."""
        self.backend.close()

    def __enter__(self) -> AutoModelForCausalLM:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _prompts(self, arrays: Mapping[str, Any]) -> list[ProcessedPrompt]:
        processor = self.backend.frontend.processor
        return from_inputs(
            arrays,
            processor.token_ids,
            spatial_merge_size=processor.config.video.merge_size,
            temporal_merge_size=processor.config.video.temporal_patch_size,
        )

    def _sampling_params(
        self, kwargs: dict[str, Any], *, do_sample: bool | None, repetition_penalty: float | None, **settings: Any
    ) -> SamplingParams:
        defaults = self.backend.default_sampling_params
        given = {key: kwargs.pop(key) for key in _SAMPLING_KEYS if kwargs.get(key) is not None}
        unknown = sorted(set(kwargs) - _HARMLESS)
        if unknown:
            raise TypeError(f"generate() got options that are not honoured here: {', '.join(unknown)}")
        samples = defaults.temperature > 0 if do_sample is None else do_sample
        drawn = {key: getattr(defaults, key) for key in _SAMPLING_KEYS} | given if samples else {"temperature": 0.0}
        if samples and drawn["temperature"] == 0:
            drawn["temperature"] = 1.0  # sampling was asked for; the checkpoint's own setting is greedy
        return SamplingParams(
            **drawn,
            repetition_penalty=defaults.repetition_penalty if repetition_penalty is None else repetition_penalty,
            repetition_break=False,
            **settings,
        )


class AutoModelForImageTextToText(AutoModelForCausalLM):
    """The same model under the other name that Transformers gives it."""


def _prepared(prompt: ProcessedPrompt) -> PreparedPrompt:
    # Not "in reasoning": stop strings then count from the first token, as in Transformers.
    return PreparedPrompt(
        processed=prompt, text=None, starts_in_reasoning=False, tools_offered=False, limits_thinking=False
    )


def _max_new_tokens(max_new_tokens: int | None, max_length: int | None, prompt_length: int) -> int:
    if max_new_tokens is not None:
        return max_new_tokens
    if max_length is None:
        return _DEFAULT_MAX_NEW_TOKENS
    if max_length <= prompt_length:
        raise RequestError(
            f"max_length is {max_length} and the prompt has {prompt_length} tokens already; give max_new_tokens.",
            param="max_length",
        )
    return max_length - prompt_length


def _check_same(inputs: Any, input_ids: Any) -> None:
    if not np.array_equal(np.asarray(inputs), np.asarray(input_ids)):
        raise RequestError("inputs and input_ids differ; give one of them, or the same twice.", param="inputs")


def _read(stream: LocalStream, n: int, streamer: Streamer | None) -> list[list[int]]:
    answers: list[list[int]] = [[] for _ in range(n)]
    with stream:
        if streamer is not None:
            streamer.put(as_array(np.array(stream.prompt_token_ids)))
        for delta in stream:
            answers[delta.index].extend(delta.token_ids)
            if streamer is not None and delta.token_ids:
                streamer.put(as_array(np.array(delta.token_ids)))
    if streamer is not None:
        streamer.end()
    return answers


def _join(input_ids_BS: Any, answers: Sequence[Sequence[int]], pad_token_id: int) -> Array:
    width = max(map(len, answers))
    out = np.full((len(answers), input_ids_BS.shape[1] + width), pad_token_id, dtype=np.int64)
    out[:, : input_ids_BS.shape[1]] = input_ids_BS
    for row, answer in zip(out, answers, strict=True):
        row[input_ids_BS.shape[1] : input_ids_BS.shape[1] + len(answer)] = answer
    return as_array(out)
