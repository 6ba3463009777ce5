/* Attaches the Edge TPU. Made by edgepack. */
#ifndef EDGEPACK_EDGETPU_H_
#define EDGEPACK_EDGETPU_H_

#include "engine.h"

/* Opens a device: "" for any, ":N", "usb", "usb:N", "pci" or "pci:N". */
edgepack_code edgetpu_attach(const char *wanted, engine_delegate *delegate, edgepack_error *error);

#endif /* EDGEPACK_EDGETPU_H_ */
