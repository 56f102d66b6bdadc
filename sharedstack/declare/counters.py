"""Counters of a participant, in shared memory: every slow path increments one, so that the field can be diagnosed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counter:
    """A counter; `unit` is what one increment means."""

    name: str
    unit: str
    meaning: str


COUNTERS: tuple[Counter, ...] = (
    Counter("tx_local_bytes", "bytes", "sent by ring"),
    Counter("rx_local_bytes", "bytes", "received by ring"),
    Counter("tx_kernel_bytes", "bytes", "sent by the kernel on registered connections"),
    Counter("rx_kernel_bytes", "bytes", "received by the kernel on registered connections"),
    Counter("registered", "endpoints", "connections registered for pairing"),
    Counter("paired", "pairs", "pairs made by this participant"),
    Counter("tx_activated", "directions", "sending directions put under count"),
    Counter("rx_activated", "directions", "receiving directions put under count"),
    Counter("opens", "calls", "rings opened"),
    Counter("shuts", "calls", "rings shut to sleep in the kernel"),
    Counter("tx_full", "calls", "sends that found the ring full"),
    Counter("tx_full_kernel", "calls", "sends that went by the kernel because the ring stayed full"),
    Counter("tx_shut_kernel", "calls", "sends that went by the kernel because the ring was shut"),
    Counter("grown", "rings", "rings that were given a larger chunk"),
    Counter("spins", "waits", "waits that began with a spin"),
    Counter("spins_hit", "waits", "spins that ended with data"),
    Counter("probes", "waits", "probing spins"),
    Counter("moves", "times", "times a thread left the CPU that it shared with the peer it was waiting for"),
    Counter("dozes", "waits", "waits inside the library behind a doorbell and on the real descriptors"),
    Counter("naps", "waits", "waits inside the library behind a doorbell alone"),
    Counter("sleeps", "waits", "waits in the kernel"),
    Counter("bells", "calls", "doorbells rung"),
    Counter("bells_failed", "calls", "doorbells that could not be rung"),
    Counter("looks", "calls", "looks at the kernel's queue"),
    Counter("lock_waits", "calls", "times a lock was waited for"),
    Counter("lock_repairs", "locks", "locks taken over from the dead"),
    Counter("busy_ctl", "calls", "registrations put off because a table was locked"),
    Counter("in_flight", "calls", "activations put off because another thread was inside the kernel on that socket"),
    Counter("exhausted", "times", "no endpoint, pair or ring memory was left"),
    Counter("attach_failed", "times", "attaching to the stack failed"),
    Counter("opener_dead", "directions", "rings shut because their reader had died"),
    Counter("reset_unread", "closes", "closes that sent RST because ring bytes were unread"),
    Counter("fork_slots", "slots", "slots taken by forked children"),
    Counter("unpaired", "pairs", "pairs of idle connections given back by the helper"),
    Counter("paired_again", "pairs", "pairs made again for connections that were idle"),
    Counter("sole_again", "connections", "shared ones that were found to have one holder left, and may be lifted (again)"),
    Counter("tx_datagrams", "datagrams", "sent by ring"),
    Counter("rx_datagrams", "datagrams", "received by ring"),
    Counter("tx_kernel_datagrams", "datagrams", "sent by the kernel on registered datagram sockets"),
    Counter("rx_kernel_datagrams", "datagrams", "received by the kernel on registered datagram sockets"),
    Counter("links_wanted", "links", "destinations to which a datagram sender asked to push"),
    Counter("links_allowed", "links", "senders allowed to push, after the kernel delivered from them"),
    Counter("links_doubted", "links", "permissions to be given anew: a port was bound or connected, or they were old"),
    Counter("residue", "bytes", "ring bytes that had to be sent again by the kernel"),
    Counter("recalled", "datagrams", "that were unread in a ring when their socket went elsewhere, and were given to the kernel"),
    Counter("recall_lost", "datagrams", "that could not be: their source's address was not to be had"),
    Counter("tx_kernel_full", "bytes", "of tx_kernel_bytes: the ring was full"),
    Counter("tx_kernel_asleep", "bytes", "of tx_kernel_bytes: the reader slept in the kernel, or had shut the ring to do so"),
    Counter("tx_kernel_unread", "bytes", "of tx_kernel_bytes: the reader had not read through the library yet"),
    Counter("tx_kernel_lowered", "bytes", "of tx_kernel_bytes: the connection, or this direction, was lowered or shut down"),
    Counter("tx_wire_bytes", "bytes", "sent by an engine"),
    Counter("rx_wire_bytes", "bytes", "received by an engine"),
    Counter("tx_wire_datagrams", "datagrams", "sent by an engine"),
    Counter("rx_wire_datagrams", "datagrams", "received by an engine"),
    Counter("wire_lifts", "connections", "lifted to an engine"),
    Counter("wire_lowers", "connections", "lowered to the kernel, asked for by this participant"),
    Counter("wire_refused", "connections", "that the helper did not lift when it was asked to"),
    Counter("tx_kernel_special", "bytes", "of tx_kernel_bytes: control data, or flags that only the kernel knows"),
    Counter("denied", "times", "the policy kept, or put, a connection or a datagram link in the kernel"),
)
