"""`pairwire doctor`: on this machine, and on machines that are broken in every way that has a finding."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pairwire.cli.diagnosis import Diagnosis, diagnose
from pairwire.cli.doctor import report
from pairwire.cli.machine import Facts, Sources, look
from pairwire.server.errors import RuntimeMissing
from pairwire.server.runtime import nvidia
from pairwire.server.runtime.nvidia import Gpu, Library, find_libraries
from tests.cli.conftest import Run

CPU = ("CPUExecutionProvider",)
CUDA = ("CPUExecutionProvider", "CUDAExecutionProvider")
H200 = Gpu(0, "NVIDIA H200", 140 << 30, 1 << 30, (9, 0), "580.95.05", "13.0")
T4 = Gpu(1, "Tesla T4", 15 << 30, 0, (7, 5), "580.95.05", "13.0")
NO_DRIVER = RuntimeMissing("no NVIDIA driver is here", "run `install it`")
NO_PYNVML = RuntimeMissing("nvidia-ml-py is not installed", nvidia.INSTALL_PYNVML)


def find(gpus: tuple[Gpu, ...] | RuntimeMissing) -> tuple[Gpu, ...]:
    if isinstance(gpus, RuntimeMissing):
        raise gpus
    return gpus


def libraries(missing: Iterable[str]) -> tuple[Library, ...]:
    def load(name: str) -> object:
        if name in missing:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return SimpleNamespace(cudnnGetVersion=lambda: 92801)

    return find_libraries(preload=lambda: None, load=load, maps=Path("/nowhere"))


def machine(
    *wheels: str,
    providers: tuple[str, ...] = CPU,
    gpus: tuple[Gpu, ...] | RuntimeMissing = (),
    cards: int = 0,
    fault: str = "",
    missing: Iterable[str] = (),
    import_ort: Callable[[], Any] | None = None,
    packages: Mapping[str, str] | None = None,
    **environment: str,
) -> Facts:
    """What is seen of a machine that has these wheels, GPUs, cards and libraries, and whose CUDA has this fault."""
    installed = dict.fromkeys(wheels, "1.31.1") | {"pairwire": "0.1.0"} | dict(packages or {})

    def version_of(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    return look(
        Sources(
            version_of=version_of,
            import_ort=import_ort or (lambda: SimpleNamespace(get_available_providers=lambda: list(providers))),
            find_gpus=lambda: find(gpus),
            find_libraries=lambda: libraries(missing),
            count_cards=lambda: cards,
            cuda_fault=lambda ort: fault,
            environment=environment,
        )
    )


def gpu_wheel(**what: Any) -> Facts:
    return machine("onnxruntime-gpu", providers=CUDA, **what)


def problems(found: Diagnosis) -> list[str]:
    return [str(finding) for finding in found.findings if finding.broken]


def notes(found: Diagnosis) -> list[str]:
    return [str(finding) for finding in found.findings if not finding.broken]


def no_module() -> object:
    raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (machine("onnxruntime", gpus=NO_DRIVER), "no NVIDIA GPU: models run on the CPU"),
        (machine("onnxruntime", gpus=NO_PYNVML), "no NVIDIA GPU: models run on the CPU"),
        (machine("onnxruntime"), "no NVIDIA GPU: models run on the CPU"),
        (gpu_wheel(gpus=(H200,), cards=1), "models run on the NVIDIA GPU"),
    ],
)
def test_what_works_has_nothing_to_say(facts: Facts, verdict: str) -> None:
    assert diagnose(facts) == Diagnosis(verdict, ())
    assert diagnose(facts).healthy


@pytest.mark.parametrize(
    ("facts", "verdict", "found"),
    [
        (
            machine("onnxruntime", gpus=(H200,), cards=1),
            "models run on the CPU, and the NVIDIA GPU is idle",
            [
                "problem: a GPU is here, but onnxruntime is the wheel for the CPU; "
                "run `pip uninstall -y onnxruntime && pip install 'pairwire[gpu]'`"
            ],
        ),
        (
            machine("onnxruntime", "onnxruntime-gpu", gpus=(H200,), cards=1),
            "no model runs: ONNX Runtime cannot be used",
            [
                "problem: both onnxruntime and onnxruntime-gpu are installed and overwrite each other; "
                "run `pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'pairwire[gpu]'`"
            ],
        ),
        (
            machine("onnxruntime", "onnxruntime-gpu", gpus=NO_DRIVER),
            "no model runs: ONNX Runtime cannot be used",
            [
                "problem: both onnxruntime and onnxruntime-gpu are installed and overwrite each other; "
                "run `pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'pairwire[cpu]'`"
            ],
        ),
        (
            machine(gpus=NO_DRIVER),
            "no model runs: ONNX Runtime cannot be used",
            ["problem: onnxruntime is not installed; run `pip install 'pairwire[cpu]'`"],
        ),
        (
            machine("onnxruntime-gpu", import_ort=no_module, gpus=(H200,), cards=1),
            "no model runs: ONNX Runtime cannot be used",
            [
                "problem: the files of onnxruntime-gpu are damaged, as after both wheels were installed "
                "(No module named 'onnxruntime'); "
                "run `pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1`"
            ],
        ),
        (
            machine("onnxruntime-gpu", providers=CPU, gpus=(H200,), cards=1),
            "no model runs on an NVIDIA GPU",
            [
                "problem: the files of onnxruntime-gpu are damaged, as after both wheels were installed "
                "(it has no CUDAExecutionProvider); "
                "run `pip install --force-reinstall --no-deps onnxruntime-gpu==1.31.1`"
            ],
        ),
        (
            gpu_wheel(gpus=(), fault="no CUDA-capable device is detected"),
            "no model runs on an NVIDIA GPU",
            [
                "problem: onnxruntime-gpu is installed, but no NVIDIA GPU is here; run `pip uninstall -y "
                "onnxruntime-gpu && pip install 'pairwire[cpu]'`, or in a container, start it with "
                "`docker run --gpus all`"
            ],
        ),
        (
            gpu_wheel(gpus=NO_DRIVER, cards=1, fault="no driver", missing=["libcuda.so.1"]),
            "no model runs on an NVIDIA GPU",
            ["problem: no NVIDIA driver is here; run `install it`"],
        ),
        (
            gpu_wheel(gpus=NO_PYNVML, cards=1, fault="broken"),
            "no model runs on an NVIDIA GPU",
            ["problem: nvidia-ml-py is not installed; run `pip install 'nvidia-ml-py>=13'`"],
        ),
        (
            gpu_wheel(gpus=(), cards=1, fault="no device"),
            "no model runs on an NVIDIA GPU",
            [
                "problem: NVIDIA cards are here, but the driver shows none; run `nvidia-smi`; "
                "in a container, start it with `docker run --gpus all`"
            ],
        ),
        (
            gpu_wheel(
                gpus=(dataclasses.replace(H200, driver="550.54.14", cuda_driver="12.4"),), fault="CUDA failure 35"
            ),
            "no model runs on an NVIDIA GPU",
            [
                "problem: driver 550.54.14 is for CUDA 12.4; onnxruntime-gpu has CUDA 13, which needs driver 580 or "
                f"newer; {nvidia.INSTALL_DRIVER}"
            ],
        ),
        (
            gpu_wheel(gpus=(T4,)),
            "the CUDA provider works, but the GPU is too old for Pairwire's attention",
            [
                "problem: GPU 1, Tesla T4, has compute capability 7.5; flash attention needs 8.0; use a GPU of 8.0 or "
                "newer (A100, A10, RTX 30 and later), or the CPU: "
                "`pip uninstall -y onnxruntime-gpu && pip install 'pairwire[cpu]'`"
            ],
        ),
        (
            gpu_wheel(gpus=(H200,), fault="no library", missing=["libcublas.so.13", "libcublasLt.so.13"]),
            "no model runs on an NVIDIA GPU",
            [
                "problem: libcublas.so.13 is missing, libcublasLt.so.13 is missing; "
                "run `pip install 'nvidia-cublas~=13.0'`"
            ],
        ),
        (
            gpu_wheel(gpus=(H200,), fault="no library", missing=["libcudart.so.13", "libcurand.so.10"]),
            "no model runs on an NVIDIA GPU",
            [
                "problem: libcudart.so.13 is missing; run `pip install 'nvidia-cuda-runtime~=13.0'`",
                "problem: libcurand.so.10 is missing; run `pip install 'nvidia-curand~=10.0'`",
            ],
        ),
        (
            gpu_wheel(gpus=(H200,), fault="no library", missing=["libcuda.so.1"]),
            "no model runs on an NVIDIA GPU",
            [
                "problem: libcuda.so.1 is missing; it comes with the driver; in a container, start it with "
                "`docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility`"
            ],
        ),
        *(
            (
                gpu_wheel(gpus=(H200,), fault="no device", CUDA_VISIBLE_DEVICES=hidden),
                "no model runs on an NVIDIA GPU",
                [
                    f"problem: CUDA_VISIBLE_DEVICES is {hidden!r}, which hides every GPU; "
                    "run `unset CUDA_VISIBLE_DEVICES`"
                ],
            )
            for hidden in ("", "-1", "1,0", "NoDevFiles")
        ),
        (
            gpu_wheel(gpus=(H200,), fault="CUDA failure 2: out of memory", CUDA_VISIBLE_DEVICES="0"),
            "no model runs on an NVIDIA GPU",
            [
                "problem: CUDAExecutionProvider does not start (CUDA failure 2: out of memory); "
                "run `nvidia-smi` to see the GPU's state"
            ],
        ),
    ],
)
def test_a_problem_has_its_cause_and_its_command(facts: Facts, verdict: str, found: list[str]) -> None:
    diagnosis = diagnose(facts)
    assert diagnosis.verdict == verdict
    assert problems(diagnosis) == found
    assert not diagnosis.healthy


@pytest.mark.parametrize(
    ("facts", "verdict", "found"),
    [
        (
            machine("onnxruntime", gpus=NO_DRIVER, cards=1),
            "no usable NVIDIA GPU: models run on the CPU",
            ["note: no NVIDIA driver is here; run `install it`"],
        ),
        (
            machine("onnxruntime", gpus=(T4,), cards=1),
            "no usable NVIDIA GPU: models run on the CPU",
            [
                "note: GPU 1, Tesla T4, has compute capability 7.5; flash attention needs 8.0; "
                "use a GPU of 8.0 or newer (A100, A10, RTX 30 and later)"
            ],
        ),
        (
            gpu_wheel(gpus=(H200, T4)),
            "models run on the NVIDIA GPU",
            [
                "note: GPU 1, Tesla T4, has compute capability 7.5; flash attention needs 8.0; "
                "use a GPU of 8.0 or newer (A100, A10, RTX 30 and later)"
            ],
        ),
        (
            gpu_wheel(gpus=NO_PYNVML),
            "models run on the NVIDIA GPU",
            ["note: nvidia-ml-py is not installed; run `pip install 'nvidia-ml-py>=13'`"],
        ),
        (
            gpu_wheel(gpus=(H200,), missing=["libcurand.so.10"]),
            "models run on the NVIDIA GPU",
            ["note: libcurand.so.10 is missing; run `pip install 'nvidia-curand~=10.0'`"],
        ),
        (
            gpu_wheel(gpus=(H200,), missing=["libcudnn.so.9", "libcufft.so.12", "libnvrtc.so.13"]),
            "models run on the NVIDIA GPU",
            [],
        ),
        (gpu_wheel(gpus=(H200,), CUDA_VISIBLE_DEVICES="-1"), "models run on the NVIDIA GPU", []),
    ],
)
def test_what_breaks_nothing_is_a_note(facts: Facts, verdict: str, found: list[str]) -> None:
    diagnosis = diagnose(facts)
    assert (diagnosis.verdict, notes(diagnosis)) == (verdict, found)
    assert diagnosis.healthy


def test_the_wrong_wheel_does_not_hide_an_old_driver() -> None:
    facts = machine("onnxruntime", gpus=(dataclasses.replace(H200, driver="550.54.14", cuda_driver="12.4"),))
    assert [line.split(";")[0] for line in problems(diagnose(facts))] == [
        "problem: a GPU is here, but onnxruntime is the wheel for the CPU",
        "problem: driver 550.54.14 is for CUDA 12.4",
    ]


def test_problems_come_before_notes() -> None:
    found = diagnose(gpu_wheel(gpus=(H200, T4), fault="no library", missing=["libcurand.so.10"]))
    assert [finding.broken for finding in found.findings] == [True, False]


def test_the_report_is_sorted_facts_a_verdict_and_problems(capsys: pytest.CaptureFixture[str]) -> None:
    facts = gpu_wheel(gpus=(H200,), fault="no libcurand", missing=["libcurand.so.10", "libcudnn.so.9"])
    assert report(facts, as_json=False) == 1
    told, _, end = capsys.readouterr().out.partition("\n\n")
    names = [line[: line.index("  ")] for line in told.splitlines()]
    assert names == sorted(names, key=str.lower)
    assert [line.split(": ")[0] for line in end.splitlines()] == ["verdict", "problem"]
    for fact in (
        "CUDA provider      does not work: no libcurand",
        "GPU 0              NVIDIA H200, 140.0 GiB of memory, 1.0 used, "
        "compute capability 9.0, driver 580.95.05, CUDA 13.0",
        "libcublas.so.13    loaded (for the CUDA provider)",
        "libcurand.so.10    is missing (for the CUDA provider): `pip install 'nvidia-curand~=10.0'`",
        "onnxruntime        onnxruntime-gpu 1.31.1",
        "pairwire           0.1.0",
        "providers          CPUExecutionProvider, CUDAExecutionProvider",
    ):
        assert fact in told.splitlines()


def test_eleven_gpus_stay_in_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    report(gpu_wheel(gpus=tuple(dataclasses.replace(H200, index=index) for index in range(11))), as_json=False)
    gpus = [line for line in capsys.readouterr().out.splitlines() if line.startswith("GPU ")]
    assert [int(line.split()[1]) for line in gpus] == list(range(11))


def test_a_gpu_without_memory_of_its_own_has_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    report(gpu_wheel(gpus=(dataclasses.replace(H200, memory_bytes=0, used_bytes=0),)), as_json=False)
    assert "memory shared with the CPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("exact", "avx512", "told"),
    [
        (True, True, "yes"),
        (True, False, "no, and none needed"),
        (False, False, "no: int8 models run on slower, exact kernels"),
    ],
)
def test_the_processor_is_told_with_what_it_means(
    capsys: pytest.CaptureFixture[str], exact: bool, avx512: bool, told: str
) -> None:
    report(dataclasses.replace(machine("onnxruntime"), avx512_vnni=avx512, int8_exact=exact), as_json=False)
    assert capsys.readouterr().out.splitlines()[0].split("  ")[-1].strip() == told


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(gpu_wheel(gpus=(H200,), fault="x", missing=["libcurand.so.10"]), as_json=True) == 1
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert list(told) == ["facts", "verdict", "healthy", "findings"]
    assert told["healthy"] is False
    assert told["facts"]["gpus"][0]["compute_capability"] == [9, 0]
    assert told["findings"] == [
        {"cause": "libcurand.so.10 is missing", "fix": "run `pip install 'nvidia-curand~=10.0'`", "broken": True}
    ]


def test_it_runs_on_this_machine(run: Run) -> None:
    done = run("doctor")
    facts = look()
    assert (done.code, done.err) == (0 if diagnose(facts).healthy else 1, "")
    assert f"verdict: {diagnose(facts).verdict}" in done.lines
    assert any(line.startswith("onnxruntime ") and facts.wheels[facts.wheel] in line for line in done.lines)
    if facts.wheel == "onnxruntime" and not facts.gpus:
        assert done.code == 0


def test_it_runs_on_this_machine_in_json(run: Run) -> None:
    done = run("doctor", "--json")
    told = json.loads(done.out)
    assert told["facts"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert done.code == (0 if told["healthy"] else 1)


def test_it_needs_no_library_that_may_be_missing() -> None:
    script = """
import sys
for name in ("onnxruntime", "pynvml", "grpc", "tokenizers", "torch"):
    sys.modules[name] = None  # an import of it fails
from pairwire.cli.main import main
sys.exit(main(["doctor"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "--force-reinstall --no-deps onnxruntime" in done.stdout


@pytest.mark.parametrize(
    ("versions", "line", "notes"),
    [
        ({}, "nothing: pip install 'pairwire[export]'", 0),
        ({"torch": "2.13.0", "onnx": "1.23", "transformers": "5.24.0", "sentence-transformers": "6.2.0"}, "4 and 5", 0),
        ({"transformers": "5.24.0", "optimum-onnx": "0.1.0"}, "transformers 5.24.0", 1),
    ],
)
def test_libraries_of_the_exporter_are_named(
    versions: dict[str, str], line: str, notes: int, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = machine("onnxruntime", packages=versions)
    assert line in facts.exporter
    found = [finding for finding in diagnose(facts).findings if "optimum" in finding.cause]
    assert len(found) == notes
    assert not any(finding.broken for finding in found)  # models are served all the same
    report(facts, as_json=False)
    assert line in capsys.readouterr().out
