/*
 * Files inside the binary. The assembler takes them from the tree itself (.incbin), so nothing generated
 * stands there or in a build folder, and every compiler and sanitizer that can build the rest can build this.
 * Paths begin at the root of the tree, where make runs. Compilers do not see what the assembler reads: the
 * Makefile names the files as dependencies of the objects. C23's #embed will be the better way
 * once compilers have it.
 */
#ifndef VAMPD_EMBED_H
#define VAMPD_EMBED_H

/* Declares symbol[] and symbol_end[] around a file's bytes, in read-only data; a 0 follows. One translation
 * unit may embed a symbol. */
#define VAMPD_EMBED(symbol, path)                                                                            \
  __asm__(".pushsection .rodata\n"                                                                           \
          ".hidden " #symbol ", " #symbol "_end\n"                                                           \
          ".global " #symbol ", " #symbol "_end\n" #symbol ":\n"                                             \
          ".incbin \"" path "\"\n" #symbol "_end:\n"                                                         \
          ".byte 0\n"                                                                                        \
          ".popsection\n");                                                                                  \
  extern const unsigned char symbol[], symbol##_end[]

#endif
