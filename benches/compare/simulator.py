"""`sluice simulate`, and what it counted."""

import json
import subprocess
import time
import urllib.request
from pathlib import Path


class Simulator:
    """One provider, `api`, on a free port of the loopback address."""

    def __init__(self, sluice: Path, scenario: str, folder: Path):
        path = folder / "scenario.toml"
        path.write_text(f"record_calls = 1000000\n{scenario}")
        self._log = (folder / "simulator.log").open("wb+")
        argv = [str(sluice), "simulate", "--listen", "127.0.0.1:0", "--scenario", str(path)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        self._address = self._listening(folder / "simulator.log")

    def _listening(self, log: Path) -> str:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for line in log.read_text().splitlines():
                if line.startswith("simulator listening on "):
                    return line.split()[3].rstrip(";")
            if self._process.poll() is not None:
                break
            time.sleep(0.02)
        raise RuntimeError(f"the simulator did not start: {log.read_text()}")

    @property
    def base_url(self) -> str:
        return f"{self._address}/api/v1"

    def _ask(self, path: str, method: str = "GET"):
        request = urllib.request.Request(f"{self._address}/_sim/{path}", method=method)
        # No proxy of the environment stands between two programs of one machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    def verdict(self) -> dict:
        return self._ask("verdict")

    def calls(self) -> list[dict]:
        return self._ask("calls?limit=1000000")

    def reset(self) -> None:
        self._ask("reset", "POST")

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
