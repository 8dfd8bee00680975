from __future__ import annotations

import json

import pytest

from tusi.bench import ceilings, run
from tusi.bench.ceilings import Peaks
from tusi.bench.picture import PARTS, jpeg_of
from tusi.bench.run import Plan, Report, measure
from tusi.bench.samples import Samples
from tusi.bench.subject import Subject, load_subject, random_subject
from tusi.bench.text import TextBench
from tusi.bench.watched import WatchedModel
from tusi.core.errors import EngineError
from tusi.engine.config import EngineConfig
from tusi.engine.core import EngineCore
from tusi.engine.request import Request

ENGINE = EngineConfig(max_model_len=512, enable_prefix_caching=False)
PEAKS = Peaks(by_unit={unit: Samples.of([100.0]) for unit in ceilings.UNITS})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "READ_BYTES", 1 << 22)
    monkeypatch.setattr(ceilings, "READ_ROUNDS", 2)
    monkeypatch.setattr(run, "measure_peaks", lambda: PEAKS)


@pytest.fixture(scope="module")
def subject() -> Subject:
    return random_subject("tiny", weight_format="int4", engine_config=ENGINE)


@pytest.fixture(scope="module")
def report(subject: Subject) -> Report:
    plan = Plan(prompts=(40,), sequences=(1, 3), tokens=4, picture=(64, 48), rounds=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ceilings, "READ_BYTES", 1 << 22)
        patch.setattr(run, "measure_peaks", lambda: PEAKS)
        return measure(subject, plan, ENGINE)


def test_every_figure_is_there_with_its_spread_and_the_bandwidth_beside_it(report: Report) -> None:
    names = [result.name for result in report.text]
    assert names == ["decode 1 sequence", "decode 3 sequences", "prefill 40 tokens"]
    for result in report.text:
        assert len(result.rate.values) == 2
        assert result.rate.low > 0
        assert len(result.bandwidth.values) == 2
        assert (result.mbu is None) == result.name.startswith("prefill")
        assert (result.mfu is None) == result.name.startswith("decode")
    assert report.text[0].experts_per_layer == 3.0
    assert 3.0 <= (report.text[1].experts_per_layer or 0) <= 8.0
    assert json.loads(json.dumps(report.as_json()))["text"][0]["name"] == names[0]


def test_a_step_of_more_sequences_reads_more(report: Report) -> None:
    one, three = (result.bytes_per_step or 0 for result in report.text[:2])
    assert 0 < one < three


def test_the_parts_of_a_picture_add_up_to_its_time(report: Report) -> None:
    picture = report.picture
    assert picture is not None
    assert tuple(picture.parts) == PARTS
    for index, total in enumerate(picture.seconds.values):
        assert total == pytest.approx(sum(part.values[index] for part in picture.parts.values()))
        assert all(part.values[index] > 0 for part in picture.parts.values())
    assert picture.patches == 16
    assert picture.tokens > picture.patches // 4


def test_memory_counts_the_whole_cache(report: Report) -> None:
    assert report.weight_bytes > 0
    assert report.kv_cache_bytes == 512 * 2 * 2 * 2 * 16 * 2
    assert report.peak_bytes is None or report.peak_bytes > report.kv_cache_bytes


def test_a_model_on_disk_is_measured_the_same_way() -> None:
    subject = load_subject("random", dtype="int8", engine_config=ENGINE)
    report = measure(subject, Plan(prompts=(), sequences=(2,), tokens=2, picture=None, rounds=1), ENGINE)
    assert report.weight_format == "int8"
    assert report.picture is None
    assert len(report.text) == 1


def test_a_request_that_fails_is_not_timed(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = WatchedModel(subject.model)
    bench = TextBench(EngineCore(watched, ENGINE), watched, PEAKS, rounds=1)

    def broken(self: WatchedModel, *args: object) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(WatchedModel, "forward", broken)
    with pytest.raises(EngineError, match="no more"):
        bench.decode(1, 2)


def test_rounds_leave_nothing_behind_in_the_engine(subject: Subject) -> None:
    watched = WatchedModel(subject.model)
    core = EngineCore(watched, ENGINE)
    added: list[Request] = []
    original = core.add_request
    core.add_request = lambda request: (added.append(request), original(request))[1]  # type: ignore[method-assign]
    TextBench(core, watched, PEAKS, rounds=2).decode(3, 4)
    assert len(added) == 9
    assert not core.has_unfinished()
    assert core.stats().num_running == 0


def test_pictures_of_different_seeds_differ_and_have_the_size() -> None:
    assert jpeg_of(40, 30, seed=1) != jpeg_of(40, 30, seed=2)
    assert jpeg_of(40, 30, seed=1) == jpeg_of(40, 30, seed=1)
