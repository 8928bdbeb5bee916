import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from given import SERVER

PROGRAM = shlex.split(os.environ.get("PERF_ANALYZER", "perf_analyzer"))
QUICK = ["--measurement-mode", "count_windows", "--measurement-request-count", "50", "-s", "999", "--max-trials", "3"]
DATA = {
    "demo": {
        "query": {"content": ["how do I bake bread"], "shape": [1]},
        "documents": {"content": ["mix flour and water", "the dog runs"], "shape": [2]},
    },
    "mini": {"text": {"content": ["mix flour and water", "the dog runs"], "shape": [2]}},
}
for model, inputs in DATA.items():
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "data.json"
        path.write_text(json.dumps({"data": [inputs]}), encoding="utf-8")
        for more in ([], ["--streaming"]):
            command = [*PROGRAM, "-m", model, "-u", SERVER, "-i", "grpc", "--input-data", str(path), *QUICK, *more]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{model} {more}: {done.returncode}\n{done.stdout}\n{done.stderr}"
            assert "Throughput" in done.stdout, done.stdout
