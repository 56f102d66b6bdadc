"""`sharedstack bench`: the kernel and the shared path, compared by one ordinary program (`shs-peer`) in interleaved rounds.

`cases` says what is measured, `peers` starts the two ends of a case, `stack` is the helper of our own, `runner` measures, `results` takes
medians and judges the proof, `report` prints, `machine` says on what.
"""
