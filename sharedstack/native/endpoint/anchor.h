/*
 * Purpose: what the kernel says of an anchor: who it is, whom it is connected with, how far its streams are.
 * Who may call: anybody who holds the descriptor; system calls, no locks.
 * Sources: socket(7) SO_COOKIE and SO_NETNS_COOKIE, tcp(7) TCP_INFO and SIOCINQ, linux/tcp.h.
 */
#pragma once
#include "shm/flow.h"

struct shs_anchor {
    struct shs_flow flow;
    uint64_t cookie, inode;
    uint32_t sndbuf, rcvbuf; /* as the program set them (SO_SNDBUF, SO_RCVBUF), in bytes; 0: it did not */
};

/* Fill in the identity of an established TCP connection: 0, or the REASON_* (positive) why it cannot be lifted. */
int shs_anchor_identify(struct shs_env *env, int fd, struct shs_anchor *anchor);
/* Of one that may be ending, flow and cookie alone, by which its record is found: each system call is part of the first use of an inherited descriptor. */
int shs_anchor_recognise(struct shs_env *env, int fd, struct shs_anchor *anchor);
/* The same of a UDP socket, which has to be bound (REASON_NOT_ESTABLISHED else). */
int shs_anchor_datagram(struct shs_env *env, int fd, struct shs_anchor *anchor);
/* Are both ends of that flow on this host, by the addresses alone? (Others may be as well.) */
bool shs_is_own_host(const struct shs_flow *flow);
/* What the program set of one of them: before the kernel doubled it; 0 if it did not. */
uint32_t shs_anchor_buffer(int fd, int option);
/* The address and port of an internet socket address; false: of another family. */
struct sockaddr_storage;
bool shs_take_address(const struct sockaddr_storage *sa, uint8_t addr[16], uint16_t *port);
/* Stream bytes that the program gave to the kernel so far (SYN not counted): 0 or -EAGAIN where the counts do not agree. */
int shs_anchor_sent(int fd, uint64_t *sent);
/* Bytes that have gone either way since the connection was made, or was lowered; 0: unknown. */
uint64_t shs_anchor_moved(int fd);
/* May the connection's other end still send: no FIN and no reset came? */
bool shs_anchor_peer_sends(int fd);
/* Stream bytes that were taken from the kernel so far: 0 or -EAGAIN. */
int shs_anchor_taken(int fd, uint64_t *taken);
