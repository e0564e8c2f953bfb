/*
 * The log: one line on standard error for each thing that happened, with the time in UTC.
 *
 * Any thread; a line is written with one system call, so lines never mix.
 */
#ifndef VAMPD_LOG_H
#define VAMPD_LOG_H

/* Control characters in what is printed become '?', so a stranger cannot forge a line. Long lines are cut
 * at 1 KiB. */
void vampd_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Seconds on a clock that only goes forward. */
double vampd_now(void);

#endif
