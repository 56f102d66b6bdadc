"""Looking at a stack from outside: read-only, without its helper, without its locks.

`snapshot` copies the used parts of the segments; everything else works on that copy: `state` decodes it into records,
`check` is an independent checker of every invariant that the declarations allow to derive, `why` says for each internet
socket of each preloaded process which path it takes and why.
"""
