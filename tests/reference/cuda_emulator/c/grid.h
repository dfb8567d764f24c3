// Runs the blocks of a grid on the cores of the host.
#pragma once
#include "fibers.h"

void run_grid(Launch*);  // sets launch->failure
