"""What computes: ONNX Runtime behind one small protocol, and a fake for tests."""
