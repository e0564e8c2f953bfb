/*
 * GET / and /web/NAME: the page for browsers (clients/web). On an HTTP thread, for its bytes are in memory.
 *
 * The page holds nothing that needs a key; what it asks for with vampd.js does. Its headers let it load its
 * own files only and run no script that stands in a document, so that no name of a clip and no text of a
 * problem can become code. A browser asks again each time (no-cache) and is mostly told that nothing has
 * changed: the entity tag is a hash of the bytes, so that a new binary is seen at once.
 */
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "server/api/page.h"
#include "server/http/exchange.h"
#include "server/http/router.h"

#define TAG_BYTES 16

static const char POLICY[] = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
                             "img-src 'self' blob: data:; media-src 'self' blob:; base-uri 'none'; "
                             "form-action 'none'; frame-ancestors 'none'";
_Static_assert(sizeof POLICY <= sizeof((struct vampd_header *)0)->value, "the policy would be cut");

void vampd_handle_page(struct vampd_exchange *exchange) {
  struct vampd_answer *answer = &exchange->answer;
  const char *name = exchange->path + (strncmp(exchange->path, "/web/", 5) == 0 ? 5 : 1);
  const struct vampd_page_file *file = vampd_page_find(name);
  unsigned char hash[TAG_BYTES];
  char tag[2 * TAG_BYTES + 1];
  size_t size = (size_t)(file->end - file->bytes);
  crypto_generichash(hash, sizeof hash, file->bytes, size, NULL, 0);
  sodium_bin2hex(tag, sizeof tag, hash, sizeof hash);
  vampd_answer_bytes(answer, 200, file->media_type, (void *)file->bytes, size);
  answer->borrowed = true;
  snprintf(answer->etag, sizeof answer->etag, "\"%s\"", tag);
  vampd_answer_header(answer, "Cache-Control", "no-cache");
  vampd_answer_header(answer, "Content-Security-Policy", "%s", POLICY);
  vampd_answer_header(answer, "Referrer-Policy", "no-referrer");
}
