"""The policy: which connections may leave the kernel's path (docs/policy.md).

`rules` has what a policy is, `file` reads one, `table` asks it, `enforce` keeps the stack's participants to it, `people` says who they are.
`rules` and `table` know of no stack: whoever serves several users asks them with participants of all of these.
"""
