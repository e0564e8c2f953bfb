/*
 * proto/openapi.yaml as JSON, in the binary. The .c beside this is written by proto/embed.py and is
 * checked against the YAML by tests/http.
 */
#ifndef VAMPD_OPENAPI_DOCUMENT_H
#define VAMPD_OPENAPI_DOCUMENT_H

/* One line of text each (ISO C bounds the length of a literal), NULL at the end. */
extern const char *const vampd_openapi_document[];

#endif
