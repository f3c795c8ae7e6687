"""llama.cpp as a chat's engine, through its C API with ctypes: no binding's own Python is imported.

`library` finds the shared library in whichever binding is installed, `layout` proves that its structures are those
declared here, `checks` refuses models that would bring it down, `engine` runs one of them.
"""
