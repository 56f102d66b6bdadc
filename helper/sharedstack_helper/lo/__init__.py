"""The kernel's own rules for packets on lo: what counts, changes or drops packets of established flows there keeps them in the kernel.

`nft` and `devices` read what there is, `packet` and `walk` find out what packets of established flows meet, `watch` looks again when the
kernel tells of a change.
"""
