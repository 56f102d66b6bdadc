/*
 * Purpose: the lent interfaces of this process. Who may call: any thread; borrowing asks the helper, in no lock of shared memory.
 * A port that was once returned stays mapped for as long as the process lives, though there may be nothing in it any more.
 */
#pragma once
#include "preload/wire.h"

/* The port of a link, if it was borrowed. */
struct shs_wire_port *shs_wire_port_at(uint32_t link);
/* The same; borrow it if it was not. NULL: it cannot be had. */
struct shs_wire_port *shs_wire_port_borrow(uint32_t link);
/* All of the stack's, which are so many: before any is needed, since the helper may die between a lift and the borrowing. false: not all can be had. */
bool shs_wire_ports_borrow(uint32_t n);
/* The process leaves its stack. */
void shs_wire_ports_drop(void);
