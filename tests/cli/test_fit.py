from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fixtures.fake_hub import NAME, serve
from tusi.models.config_write import config_to_dict
from tusi.models.random_checkpoint import tiny_config, write_random_checkpoint

THINKING = "baidu/ERNIE-4.5-VL-28B-A3B-Thinking"


def fit_json(run: Run, *args: str) -> tuple[int, dict[str, object]]:
    code, out, _ = run("fit", *args, "--json")
    return code, json.loads(out)


def test_the_published_model_needs_no_network(run: Run) -> None:
    code, value = fit_json(run, THINKING, "--memory", "1TB", "--context", "131072", "--image", "4000x3000")
    assert code == 0
    assert value["parameters_total"] == 29_664_059_776
    assert value["kv_cache_bytes_per_token"] == 57_344
    assert round(value["checkpoint_bytes"] / 1e9, 2) == 59.35  # type: ignore[operator]
    rows = {row["dtype"]: row for row in value["rows"]}  # type: ignore[attr-defined]
    assert rows["bf16"]["kv_cache_bytes"] == 7 * 2**30
    assert rows["bf16"]["total_bytes"] > rows["int8"]["total_bytes"] > rows["int4"]["total_bytes"]
    assert value["image"] == {
        "width": 4000, "height": 3000, "resized_width": 2520, "resized_height": 1904,
        "num_patches": 24480, "num_tokens": 6120,
    }  # fmt: skip
    assert value["best_dtype"] == "bf16"


def test_the_table_for_people(run: Run) -> None:
    code, out, _ = run("fit", THINKING, "--memory", "24GB")
    assert code == 0
    lines = {line.strip().split("  ")[0]: line.split() for line in out.splitlines() if line}
    assert lines["text experts"][2:] == ["40.77", "GB", "21.66", "GB", "11.47", "GB"]
    assert lines["fits?"] == ["fits?", "no", "no", "fits"]
    assert "29.66 billion parameters, 59.35 GB to download" in out
    assert "Use: --dtype int4 --max-model-len 32768" in out
    assert "Disk for the download: 59.35 GB" in out


def test_what_to_change_where_it_does_not_fit(run: Run) -> None:
    code, out, _ = run("fit", THINKING, "--memory", "20.5GB", "--context", "65536")
    assert code == 1
    assert "As asked nothing fits. This does: --dtype int4 --max-model-len " in out
    code, out, _ = run("fit", THINKING, "--memory", "19.5GB", "--image", "4000x3000")
    assert "--max-pixels" in out
    code, out, _ = run("fit", THINKING, "--memory", "8GB")
    assert code == 1
    assert (
        "Nothing fits: even int4 with a short context and small pictures wants 19.00 GB, and there are 8.00 GB" in out
    )


def test_the_dtype_of_the_cache_counts_and_is_part_of_the_advice(run: Run) -> None:
    value = fit_json(run, THINKING, "--memory", "24GB", "--kv-cache-dtype", "int8")[1]
    assert value["kv_cache_dtype"] == "int8"
    assert value["kv_cache_bytes_per_token"] == 2 * 28 * 4 * (128 + 4)
    out = run("fit", THINKING, "--memory", "24GB", "--kv-cache-dtype", "int8")[1]
    assert "Use: --dtype int4 --max-model-len 32768 --kv-cache-dtype int8" in out
    assert run("fit", THINKING, "--kv-cache-dtype", "fp8")[0] == 2


def test_a_picture_that_fills_the_context_is_mentioned(run: Run) -> None:
    out = run("fit", THINKING, "--memory", "1TB", "--context", "2048", "--image", "4000x3000")[1]
    assert "The picture alone takes 6120 tokens, the context has 2048" in out
    out = run("fit", THINKING, "--memory", "1TB", "--max-pixels", "100000", "--image", "4000x3000")[1]
    assert "read as 364 x 252, 468 patches, 117 tokens" in out


def test_a_folder_a_file_and_a_name_on_the_hub_agree(run: Run, tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "m")
    config = (folder / "config.json").read_bytes()
    renamed = tmp_path / "renamed.json"
    renamed.write_bytes(config)
    with serve({"config.json": config, "model.safetensors": b"never fetched"}) as hub:
        sources = (str(folder), str(folder / "config.json"), str(renamed), NAME)
        seen = [
            fit_json(run, s, "--endpoint", hub.url, "--image", "140x140", "--memory", "4GB", "--context", "512")[1]
            for s in sources
        ]
        assert set(hub.sent) == {"config.json"}
    assert len({json.dumps(value["rows"]) for value in seen}) == 1
    assert seen[0]["parameters_total"] == seen[3]["parameters_total"] > 0  # type: ignore[operator]


def test_both_layouts_of_the_config_count_the_same(run: Run, tmp_path: Path) -> None:
    totals = set()
    for layout in ("hub", "transformers"):
        path = tmp_path / f"{layout}.json"
        path.write_text(json.dumps(config_to_dict(tiny_config(), layout)))  # type: ignore[arg-type]
        totals.add(fit_json(run, str(path), "--memory", "1GB", "--context", "64")[1]["parameters_total"])
    assert len(totals) == 1


def test_without_memory_this_machine_is_asked(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config_to_dict(tiny_config())))
    code, out, _ = run("fit", str(path), "--context", "64")
    assert code == 0
    assert "free on this machine" in out


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("nonsense",), 2, "expected ORGANISATION/NAME"),
        ((THINKING, "--image", "big"), 2, "expected WIDTHxHEIGHT in pixels, for example 1920x1080"),
        ((THINKING, "--image", "0x5"), 2, "both sides must be at least 1"),
        ((THINKING, "--memory", "lots"), 2, "expected a size such as 24GB or 32GiB"),
        ((THINKING, "--context", "200000"), 2, "reads at most 131072 tokens. Ask for fewer"),
        (("acme/tiny", "--endpoint", "http://127.0.0.1:9"), 1, "Check the network or try a mirror"),
    ],
)
def test_errors(run: Run, args: tuple[str, ...], code: int, message: str) -> None:
    got, out, err = run("fit", *args)
    assert (got, out) == (code, "")
    assert message in err


def test_a_file_that_is_no_config(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{")
    code, _, err = run("fit", str(path))
    assert code == 1
    assert "cannot be read as JSON" in err
    path.write_text(json.dumps({"model_type": "llama"}))
    assert "Tusi runs ERNIE-4.5-VL only" in run("fit", str(path))[2]
