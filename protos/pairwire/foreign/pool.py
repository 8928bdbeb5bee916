"""A descriptor pool of our own: tritonclient, kserve and mlserver each put ``inference.*`` into protobuf's default one.

A process that registers the same names there twice dies with a duplicate symbol, so that a server which did it could
not live in one process with any of them. `make protos` has the generated modules beside this one use this pool.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
