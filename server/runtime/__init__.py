"""What computes: arrays in, arrays out. The engine sees ONNX Runtime through these files alone.

base.py          the seam: one fixed shape in, one float matrix out
ort.py           ONNX Runtime itself, its telemetry off
onnx_cpu.py      ONNX Runtime on a CPU                  fake.py              a runtime for tests
packed.py        batches without padding, their shapes
onnx_cuda.py     ONNX Runtime on an NVIDIA GPU          cuda_session.py      its session and options
cuda_probe.py    what a GPU can do, by trying           attention_kernels.py which kernel each attention takes
nvidia.py        what the driver says                   processor.py         what the CPU is called
wheels.py        exactly one wheel of onnxruntime       descriptors.py       what C libraries print
"""
