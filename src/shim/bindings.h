/* SPDX-License-Identifier: GPL-2.0 */
/*
 * All that Rust sees of C. bindgen makes the Rust declarations out of this header in every build,
 * of what a list in Kbuild names (tao-items).
 */
#include "conn.h"
#include "ends.h"
#include "lib.h"
#include "load.h"
#include "pin.h"
#include "query.h"
#include "rust.h"
#include "seam.h"
#include "standin.h"
#include "sysctl.h"
#include "tao.h"
#include "wake.h"
