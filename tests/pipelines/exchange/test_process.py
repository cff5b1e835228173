from __future__ import annotations

import contextlib
import gzip
import socket
import sys
from pathlib import Path

import httpx
import orjson
import pytest

from cluster import processes
from pipelines.exchange import __main__ as command
from pipelines.exchange.state import PlayedMinutes
from pipelines.tape import read_tape, tape_files


def _config(folder: Path, **values: object) -> Path:
    path = folder / "exchange.json"
    path.write_bytes(orjson.dumps(values))
    return path


def test_process_sigterm_ends_cleanly_with_the_tape_whole(tmp_path: Path) -> None:
    port = processes.free_port()
    config = _config(
        tmp_path, port=port, symbols=["SPY"], speed=60, open_on="start",
        record_dir=str(tmp_path / "tape"), state_path=str(tmp_path / "state.json"),
    )  # fmt: skip
    child = processes.start(
        "exchange",
        [sys.executable, "-m", "pipelines.exchange", str(config)],
        run_dir=tmp_path / "run",
        log_dir=tmp_path / "log",
    )

    def published() -> bool:
        with contextlib.suppress(httpx.TransportError):
            stats = httpx.get(f"http://127.0.0.1:{port}/raytape/stats").json()
            return bool(stats["published"] > 50)
        return False

    try:
        processes.wait_until(published, name="exchange", timeout_s=30, child=child)
    finally:
        processes.stop(child, run_dir=tmp_path / "run")
    assert child.process() is None
    assert not processes.port_in_use(port)
    messages = list(read_tape(tmp_path / "tape"))
    assert len(messages) > 50
    assert gzip.decompress(tape_files(tmp_path / "tape")[0].read_bytes())  # it is whole
    last = PlayedMinutes(tmp_path / "state.json").last("synthetic")
    assert last is not None
    assert "Traceback" not in Path(child.log).read_text()


def test_command_market_that_breaks_ends_with_a_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.json.new").mkdir()  # the state cannot be written
    config = _config(
        tmp_path, port=processes.free_port(), symbols=["SPY"], open_on="start",
        state_path=str(tmp_path / "state.json"),
    )  # fmt: skip
    assert command.main([str(config)]) == 1
    assert "the market stopped" in caplog.text


@pytest.mark.parametrize("text", ["{", '{"speed": -1}', '{"nope": 1}'])
def test_command_wrong_configuration_says_so_and_fails(tmp_path: Path, text: str) -> None:
    path = tmp_path / "exchange.json"
    path.write_text(text)
    assert command.main([str(path)]) == 1


def test_command_port_in_use_says_so_and_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert command.main([str(_config(tmp_path, port=port, symbols=["SPY"]))]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in caplog.text
