"""The protobuf messages: `.proto` files and the modules generated from them.

Only the codec files of `wire` import them. `python -m shoal.wire.proto` generates them again;
file and package names start with `shoal` since protobuf's descriptor pool is global.
"""
