"""What sharedstack is made of, declared once.

Everything that C, Python and the documentation must agree on is written here and only here: the layout of shared
memory, options, counters, intercepted functions, control messages, reasons and the order of locks. `generate` turns
the declarations into C headers, wrappers and reference pages; `binary` turns them into readers for Python.
"""
