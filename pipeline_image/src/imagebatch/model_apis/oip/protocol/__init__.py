"""The messages of the Open Inference Protocol over gRPC, and what protoc makes of them."""
