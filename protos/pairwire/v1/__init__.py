"""The wire contract: modules generated from the .proto files beside them by `make protos`."""
