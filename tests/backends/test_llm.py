"""LLM: vLLM's shape, on a tiny model and on the fake backend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tusi.backends.fake import FakeBackend
from tusi.backends.llm import LLM
from tusi.backends.outputs import BatchError
from tusi.chat.messages import Message, TextPart
from tusi.core.errors import BackendUnavailable, CheckpointError, ConfigError, RequestError, UnsupportedMedia
from tusi.engine.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0.0, max_tokens=6)


def say(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def llm(tiny_folder: Path) -> Iterator[LLM]:
    with LLM(tiny_folder, dtype="fp32", max_model_len=1024, max_num_seqs=4) as made:
        yield made


def test_where_weights_lie_and_what_products_do_is_passed_on(tiny_folder: Path) -> None:
    with pytest.raises(ConfigError, match="tusi pack"):
        LLM(tiny_folder, weight_memory="mmap")
    with pytest.raises(ConfigError, match="only products over integer weights"):
        LLM(tiny_folder, dtype="fp32", activations="int8")


def test_one_conversation_gives_a_list_of_one(llm: LLM) -> None:
    [output] = llm.chat(say("Hi"), SamplingParams(temperature=0.0, max_tokens=12, logprobs=2))
    [completion] = output.outputs
    assert output.finished
    assert completion.finished()
    assert output.prompt is not None
    assert output.prompt.endswith("Assistant: \n<think>\n")
    assert output.prompt_token_ids is not None
    assert len(output.prompt_token_ids) == output.usage.prompt_tokens
    assert len(completion.token_ids) == 12
    assert completion.text.startswith(completion.reasoning or "")
    assert completion.logprobs is not None
    assert [token_id in table for token_id, table in zip(completion.token_ids, completion.logprobs, strict=True)]
    assert all(2 <= len(table) <= 3 for table in completion.logprobs)
    chosen = [table[i].logprob for i, table in zip(completion.token_ids, completion.logprobs, strict=True)]
    assert completion.cumulative_logprob == pytest.approx(sum(chosen))


def test_many_conversations_come_back_in_order(llm: LLM) -> None:
    conversations = [say(f"Number {i}") for i in range(12)]
    together = llm.chat(conversations, GREEDY)
    for conversation, output in zip(conversations, together, strict=True):
        [alone] = llm.chat(conversation, GREEDY)
        assert alone.prompt == output.prompt
        assert alone.outputs[0].token_ids == output.outputs[0].token_ids


def test_each_conversation_may_have_its_own_parameters(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=count) for count in (1, 2, 3)]
    outputs = llm.chat([say("a")] * 3, params)
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 2, 3]
    with pytest.raises(ConfigError, match="sampling_params has 3 entries for 2 inputs"):
        llm.chat([say("a")] * 2, params)


def test_message_values_work_too(llm: LLM) -> None:
    [output] = llm.chat([Message(role="user", content=(TextPart("Hi"),))], GREEDY)
    assert output.outputs[0].token_ids == llm.chat(say("Hi"), GREEDY)[0].outputs[0].token_ids


def test_one_bad_conversation_costs_nobody_else(llm: LLM, tmp_path: Path) -> None:
    bad = [{"role": "user", "content": [{"type": "image", "image": str(tmp_path / "missing.png")}]}]
    worse = [{"role": "narrator", "content": "x"}]
    with pytest.raises(BatchError, match="2 of 3 conversations failed; the first is number 1") as caught:
        llm.chat([say("a"), bad, worse], GREEDY)
    assert caught.value.outputs[0].outputs[0].token_ids
    outputs = llm.chat([say("a"), bad, worse], GREEDY, on_error="return")
    assert [type(output.error) for output in outputs] == [type(None), UnsupportedMedia, RequestError]
    with pytest.raises(RequestError, match="narrator"):
        llm.chat(worse, GREEDY)


def test_the_checkpoint_recommends_its_sampling(llm: LLM) -> None:
    assert (llm.get_default_sampling_params().temperature, llm.get_default_sampling_params().top_p) == (0.8, 0.8)


def test_streaming(llm: LLM) -> None:
    deltas = list(llm.stream_chat(say("Hi"), GREEDY))
    assert "".join(delta.text for delta in deltas) == llm.chat(say("Hi"), GREEDY)[0].outputs[0].text


def test_options_reach_the_template_and_the_processor(llm: LLM) -> None:
    [output] = llm.chat(say("Hi"), GREEDY, chat_template_kwargs={"enable_thinking": False})
    assert output.outputs[0].reasoning is None
    with pytest.raises(RequestError, match="enable_thinkin"):
        llm.chat(say("Hi"), GREEDY, chat_template_kwargs={"enable_thinkin": False})
    picture = {"type": "image", "image": Image.new("RGB", (280, 280))}
    message = [{"role": "user", "content": [picture]}]
    [small] = llm.chat(message, GREEDY, mm_processor_kwargs={"image_max_pixels": 4 * 28 * 28})
    assert small.usage.image_tokens == 4
    with pytest.raises(RequestError, match="image_maxpixels"):
        llm.chat(message, GREEDY, mm_processor_kwargs={"image_maxpixels": 4})


def test_raw_prompts(llm: LLM) -> None:
    [chat] = llm.chat(say("Hi"), GREEDY)
    assert chat.prompt is not None
    text, ids = llm.generate([chat.prompt, {"prompt_token_ids": chat.prompt_token_ids}], GREEDY)
    assert text.prompt_token_ids == ids.prompt_token_ids == chat.prompt_token_ids
    assert text.outputs[0].token_ids == ids.outputs[0].token_ids == chat.outputs[0].token_ids
    assert ids.outputs[0].reasoning == chat.outputs[0].reasoning, "an open <think> is seen in ids too"


def test_raw_prompts_begin_together_whatever_stands_among_them(llm: LLM) -> None:
    """More than run at once; a wrong one, an empty one and a long one among them."""
    prompts: list[object] = [{"prompt_token_ids": [5, 7, 11 + i]} for i in range(9)]
    prompts[1] = {"prompt": "Hi", "nonsense": 1}
    prompts[2] = {"prompt_token_ids": []}
    prompts[5] = "many words " * 5000
    prompts[7] = "Some text."
    outputs = llm.generate(prompts, GREEDY, on_error="return")  # type: ignore[arg-type]
    assert [output.error is not None for output in outputs] == [i in (1, 2, 5) for i in range(9)]
    assert "nonsense" in str(outputs[1].error)
    for at in (0, 3, 4, 6, 7, 8):
        [alone] = llm.generate([prompts[at]], GREEDY)  # type: ignore[list-item]
        assert outputs[at].outputs[0].token_ids == alone.outputs[0].token_ids


def test_raw_prompts_with_a_picture(llm: LLM) -> None:
    picture = Image.new("RGB", (60, 60), "red")
    [chat] = llm.chat([{"role": "user", "content": [{"type": "image", "image": picture}]}], GREEDY)
    prompt = {"prompt": chat.prompt, "multi_modal_data": {"image": picture}}
    [raw] = llm.generate(prompt, GREEDY)
    assert raw.prompt_token_ids == chat.prompt_token_ids
    with pytest.raises(RequestError, match="1 placeholders for images and 0 images are given"):
        llm.generate(chat.prompt or "", GREEDY)
    with pytest.raises(RequestError, match='multi_modal_data has \'audio\'; this model reads "image" and "video"'):
        llm.generate({"prompt": "x", "multi_modal_data": {"audio": b""}}, GREEDY)
    with pytest.raises(RequestError, match="promt"):
        llm.generate({"promt": "x"}, GREEDY)
    with pytest.raises(RequestError, match="exactly one of the two"):
        llm.generate({"prompt": "x", "prompt_token_ids": [5]}, GREEDY)


def test_unknown_arguments_are_errors(tiny_folder: Path, llm: LLM) -> None:
    with pytest.raises(TypeError, match="max_model_length"):
        LLM(tiny_folder, max_model_length=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="sample_params"):
        llm.chat(say("x"), sample_params=GREEDY)  # type: ignore[call-arg]


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no folder 'nowhere'"):
        LLM("nowhere")
    with pytest.raises(ConfigError, match="made for 8192 tokens"):
        LLM("random", max_model_len=10_000)


def test_any_backend_will_do() -> None:
    with LLM.from_backend(FakeBackend(["a thought\n</think>\n\nfour"])) as llm:
        [output] = llm.chat(say("2+2?"))
        assert (output.outputs[0].reasoning, output.outputs[0].content) == ("a thought", "four")
        with pytest.raises(BackendUnavailable, match="Use chat"):
            llm.generate("x")


def test_a_progress_bar_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    llm = LLM.from_backend(FakeBackend(["a", "b"]))
    llm.chat([say("x"), say("y")], use_tqdm=True)
    assert "answers" in capsys.readouterr().err
