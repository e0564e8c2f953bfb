/*
 * Whether a request may be what it says it is, from its header lines alone. On an HTTP thread.
 */
#ifndef VAMPD_CHECK_H
#define VAMPD_CHECK_H

#include "server/http/exchange.h"

/* Finds route, caller and query of an exchange whose fields are there, or answers it. */
void vampd_check_request(struct vampd_exchange *exchange, const char *method, const char *path);

/* Answers who was not let in; true where that was so. */
bool vampd_check_refuse_entry(struct vampd_exchange *exchange, enum vampd_entry entry);

#endif
