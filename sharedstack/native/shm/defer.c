#include "shm/defer.h"

__thread struct shs_defer shs_defer __attribute__((tls_model("initial-exec")));
void (*shs_defer_run)(void);
