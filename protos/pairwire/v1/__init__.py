"""The wire contract: modules generated from the .proto files next to them by `make protos`."""
