/*
 * Decoding in a process of its own: the same samples as in this process, the same errors, and whatever a clip
 * does to its decoder is an error of that clip and of no other.
 *
 * This program is also the decoder: it is run again as one, with a decode function that obeys a few clips
 * that no library would (they begin with "HOOK"), and hands all others to the engine.
 */
#include "test_audio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "server/decode/decode.h"
#include "server/log.h"

/* A sanitizer keeps books, which take memory of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

static const struct vampd_decoder_patience SHORT = {1, 0};

/* ---- what the decoder does here ------------------------------------------------------------------------ */

/* Not to be optimised away, and not understood by an analyser. */
static void *volatile nowhere;
static volatile unsigned sink;

static void sleep_for_ever(void) {
  for (int word = 0;;) { /* a futex is among the few calls that are allowed */
    syscall(SYS_futex, &word, 0 /* wait */, 0, NULL, NULL, 0);
  }
}

static int fill_memory(struct vamp_error *error) {
  for (;;) {
    char *block = malloc(1 << 20);
    if (!block) {
      return vamp_fail(error, VAMP_MEMORY, "no more");
    }
    for (size_t i = 0; i < 1 << 20; i += 4096) {
      block[i] = 1;
    }
    nowhere = block;
  }
}

/* Tries what the filter and the limits refuse without ending the process. */
static int try_everything(struct vamp_error *error) {
  void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool opened = open("/dev/null", O_RDONLY) >= 0 || open("/proc/self/mem", O_RDWR) >= 0;
  bool wrote = write(2, "", 1) >= 0 || write(3, "", 1) >= 0;
  bool executes = code != MAP_FAILED;
  return vamp_fail(error, VAMP_INVALID, "opened %d, wrote %d, executes %d", opened, wrote, executes);
}

static int obey(int order, const struct vamp_audio_limits *limits, float *room, struct vamp_audio *audio,
                struct vamp_error *error) {
  *audio = (struct vamp_audio){.samples = room, .frames = 100, .channels = 1, .sample_rate = 44100};
  switch (order) {
  case 'c': /* crash */
    return *(volatile int *)nowhere;
  case 'a':
    abort();
  case 'e':
    _exit(3);
  case 'q': /* leave as if all were well */
    _exit(0);
  case 'h':
    sleep_for_ever();
    break;
  case 'b': /* busy */
    while (true) {
      sink++;
    }
  case 'w': /* for a while, and then well */
    for (double end = vampd_now() + 0.3; vampd_now() < end;) {
      sink++;
    }
    return 0;
  case 'm':
    return fill_memory(error);
  case 't':
    return try_everything(error);
  case 's':
    return vamp_fail(error, VAMP_INVALID, "a socket: %d", socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
  case 'f':
    sink = (unsigned)fork();
    return vamp_fail(error, VAMP_INVALID, "a process");
  case 'l': /* leak */
    nowhere = malloc(10 << 20);
    memset(nowhere, 1, 10 << 20);
    return 0;
  case '1': /* lies */
    audio->frames = limits->max_samples + 1;
    return 0;
  case '2':
    audio->frames = SIZE_MAX / 4;
    audio->channels = 64;
    return 0;
  case '3':
    audio->channels = -1;
    return 0;
  case '4':
    audio->sample_rate = 0;
    return 0;
  case '5':
    room[50] = NAN;
    return 0;
  case '6':
    return 77;
  case '7':
    memset(error->message, 7, sizeof error->message);
    return VAMP_INVALID;
  default:
    break;
  }
  return 0;
}

static int decode(const void *data, size_t size, const char *name, const struct vamp_audio_limits *limits,
                  float *room, struct vamp_audio *audio, struct vamp_error *error) {
  if (size >= 5 && memcmp(data, "HOOK", 4) == 0) {
    return obey(((const char *)data)[4], limits, room, audio, error);
  }
  return vamp_audio_read_memory_into(data, size, name, limits, room, audio, error);
}

/* ---- helpers ------------------------------------------------------------------------------------------- */

static struct vampd_decoder *open_decoder(void) {
  struct vampd_decoder *decoder = NULL;
  struct vamp_error error = {0};
  if (vampd_decoder_start(&SHORT, &decoder, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return decoder;
}

static int order(struct vampd_decoder *decoder, char what, struct vamp_error *error) {
  char clip[] = "HOOK?";
  clip[4] = what;
  struct vamp_audio audio = {0};
  int status = vampd_decoder_read(decoder, clip, sizeof clip - 1, "clip", NULL, &audio, error);
  vamp_audio_free(&audio);
  return status;
}

/* The order ends in this error, and the next clip is decoded. */
static void expect(struct vampd_decoder *decoder, char what, int status, const char *message) {
  struct vamp_error error = {0};
  int got = order(decoder, what, &error);
  if (got != status || !strstr(error.message, message)) {
    fail_msg("%c: wanted %d \"%s\", got %d \"%s\"", what, status, message, got, error.message);
  }
  assert_int_equal(order(decoder, '.', &error), 0);
}

/* Both ways of decoding say the same, bit for bit; where it can be decoded, and how many frames there are. */
static size_t compare(struct vampd_decoder *decoder, const void *data, size_t size,
                      const struct vamp_audio_limits *limits) {
  struct vamp_audio here = {0}, there = {0};
  struct vamp_error expected = {0}, error = {0};
  int status = vamp_audio_read_memory(data, size, "upload", limits, &here, &expected);
  assert_int_equal(vampd_decoder_read(decoder, data, size, "upload", limits, &there, &error), status);
  assert_string_equal(error.message, expected.message);
  assert_int_equal(there.frames, here.frames);
  assert_int_equal(there.channels, here.channels);
  assert_int_equal(there.sample_rate, here.sample_rate);
  if (status == 0) {
    assert_memory_equal(there.samples, here.samples,
                        here.frames * (size_t)here.channels * sizeof *here.samples);
  }
  size_t frames = here.frames;
  vamp_audio_free(&here);
  vamp_audio_free(&there);
  return frames;
}

static int count_entries(const char *folder) {
  int count = 0;
  DIR *entries = opendir(folder);
  assert_non_null(entries);
  while (readdir(entries)) {
    count++;
  }
  closedir(entries);
  return count;
}

static int count_descriptors(pid_t process) {
  char folder[64];
  snprintf(folder, sizeof folder, "/proc/%d/fd", (int)process);
  return count_entries(folder);
}

/* Processes whose parent is this one, zombies among them. */
static int count_children(pid_t parent) {
  int count = 0;
  DIR *entries = opendir("/proc");
  assert_non_null(entries);
  for (struct dirent *entry; (entry = readdir(entries));) {
    char path[300], state;
    int process, of;
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    FILE *file = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? fopen(path, "r") : NULL;
    if (file && fscanf(file, "%d %*s %c %d", &process, &state, &of) == 3) {
      count += of == (int)parent;
    }
    if (file) {
      fclose(file);
    }
  }
  closedir(entries);
  return count;
}

static long resident_kib(pid_t process) {
  char path[64];
  long pages = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", (int)process);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
  fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* ---- what is audio ------------------------------------------------------------------------------------- */

static const struct {
  int format, rate, channels;
} KINDS[] = {
    {SF_FORMAT_WAV | SF_FORMAT_PCM_16, 44100, 2},          {SF_FORMAT_WAV | SF_FORMAT_PCM_24, 48000, 1},
    {SF_FORMAT_WAV | SF_FORMAT_FLOAT, 96000, 6},           {SF_FORMAT_WAV | SF_FORMAT_ULAW, 8000, 1},
    {SF_FORMAT_WAV | SF_FORMAT_IMA_ADPCM, 22050, 1},       {SF_FORMAT_WAVEX | SF_FORMAT_PCM_16, 44100, 6},
    {SF_FORMAT_RF64 | SF_FORMAT_PCM_16, 44100, 1},         {SF_FORMAT_AIFF | SF_FORMAT_PCM_24, 44100, 2},
    {SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 2},         {SF_FORMAT_FLAC | SF_FORMAT_PCM_24, 192000, 1},
    {SF_FORMAT_OGG | SF_FORMAT_VORBIS, 44100, 2},          {SF_FORMAT_OGG | SF_FORMAT_OPUS, 48000, 1},
    {SF_FORMAT_MPEG | SF_FORMAT_MPEG_LAYER_III, 44100, 2},
};
#define KIND_COUNT (sizeof KINDS / sizeof KINDS[0])

static struct bytes make(void **state, size_t kind, size_t frames) {
  return fixture_encode_tone(state, KINDS[kind].format, KINDS[kind].rate, KINDS[kind].channels, frames);
}

static void test_every_format(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  for (size_t i = 0; i < KIND_COUNT; i++) {
    struct bytes bytes = make(state, i, 30000);
    assert_true(compare(decoder, bytes.data, bytes.size, NULL) >= 30000);
    free(bytes.data);
  }
  vampd_decoder_stop(decoder);
}

static void test_what_is_cut_or_damaged(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  for (size_t i = 0; i < KIND_COUNT; i++) {
    struct bytes bytes = make(state, i, 5000);
    for (size_t size = 0; size < bytes.size; size += 1 + bytes.size / 7) {
      compare(decoder, bytes.data, size, NULL);
    }
    for (size_t at = 5; at < bytes.size; at += 1 + bytes.size / 7) {
      bytes.data[at] ^= 0x55;
      compare(decoder, bytes.data, bytes.size, NULL);
    }
    free(bytes.data);
  }
  vampd_decoder_stop(decoder);
}

static void test_corpus(void **state) {
  (void)state;
  const char *folder = "tests/fuzz/corpus/fuzz_audio";
  struct vampd_decoder *decoder = open_decoder();
  DIR *entries = opendir(folder);
  assert_non_null(entries);
  int count = 0;
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (entry->d_name[0] != '.') {
      char path[512];
      snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
      struct bytes bytes = fixture_load(path);
      compare(decoder, bytes.data, bytes.size, NULL);
      free(bytes.data);
      count++;
    }
  }
  closedir(entries);
  assert_true(count >= 12);
  vampd_decoder_stop(decoder);
}

static void test_claims(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  const uint32_t sizes[] = {0, 1, 0x7FFFF000u, 0x80000000u, 0xFFFFFFF0u, 0xFFFFFFFFu};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    struct bytes wav = fixture_wav(sizes[i], sizes[i], 2, 44100, 1000);
    compare(decoder, wav.data, wav.size, NULL);
    put_le(wav.data + 24, sizes[i], 4); /* the rate */
    compare(decoder, wav.data, wav.size, NULL);
    free(wav.data);
  }
  vampd_decoder_stop(decoder);
}

/* A FLAC of silence takes fourteen bytes a frame: half a megabyte is an hour. */
static struct bytes make_bomb(void **state) {
  float *silence = calloc(8192, sizeof *silence);
  assert_non_null(silence);
  struct bytes flac = fixture_encode(state, SF_FORMAT_FLAC | SF_FORMAT_PCM_16, 44100, 1, silence, 8192);
  free(silence);
  size_t second = flac.size;
  while (second > 42 && !(flac.data[second - 2] == 0xFF && flac.data[second - 1] == 0xF8)) {
    second--;
  }
  second -= 2;
  size_t frame = flac.size - second, copies = (500 << 10) / frame;
  struct bytes bomb = {.size = flac.size + copies * frame};
  bomb.data = malloc(bomb.size);
  assert_non_null(bomb.data);
  memcpy(bomb.data, flac.data, flac.size);
  for (size_t i = 0; i < copies; i++) {
    memcpy(bomb.data + flac.size + i * frame, flac.data + second, frame);
  }
  bomb.data[21] &= 0xF0; /* an unknown number of samples */
  memset(bomb.data + 22, 0, 4);
  free(flac.data);
  return bomb;
}

static void test_an_hour_in_half_a_megabyte(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  struct bytes bomb = make_bomb(state);
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  limits.max_seconds = 20;
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  assert_int_equal(vampd_decoder_read(decoder, bomb.data, bomb.size, "upload", &limits, &audio, &error),
                   VAMP_LIMIT);
  assert_non_null(strstr(error.message, "longer than the 20 s"));
  compare(decoder, bomb.data, bomb.size, &limits);
  limits.max_seconds = 1e9;
  limits.max_samples = 1000;
  compare(decoder, bomb.data, bomb.size, &limits);
  /* A header that claims a week. */
  uint64_t week = 604800ull * 44100;
  bomb.data[21] = (unsigned char)((bomb.data[21] & 0xF0) | (week >> 32 & 15));
  for (int i = 0; i < 4; i++) {
    bomb.data[22 + i] = (unsigned char)(week >> (24 - 8 * i));
  }
  compare(decoder, bomb.data, bomb.size, NULL);
  free(bomb.data);
  vampd_decoder_stop(decoder);
}

/* libvorbis loses 6 kB where the third header of a stream is damaged; here they go with the process. */
static void test_a_leaking_header(void **state) {
  struct vampd_decoder *decoder = open_decoder();
  struct bytes ogg = make(state, 10, 5000);
  size_t at = 0;
  while (memcmp(ogg.data + at, "\5vorbis", 7) != 0) {
    assert_true(++at + 7 < ogg.size);
  }
  ogg.data[at + 8] ^= 0xFF;
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  long before = resident_kib(process);
  for (int i = 0; i < 100; i++) {
    assert_int_equal(vampd_decoder_read(decoder, ogg.data, ogg.size, "x", NULL, &audio, &error),
                     VAMP_INVALID);
    assert_int_equal(order(decoder, 'l', &error), 0);
  }
  assert_true(SANITIZED || resident_kib(process) - before < 512);
  free(ogg.data);
  vampd_decoder_stop(decoder);
}

/* ---- what a clip may do to its process ------------------------------------------------------------------
 */

static void test_crashes(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  const char *message = "The audio cannot be read: the decoder failed on it";
  for (const char *c = "caeq"; *c; c++) {
    expect(decoder, *c, VAMP_INVALID, message);
  }
  vampd_decoder_stop(decoder);
}

static void test_lies(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  for (const char *c = "123456"; *c; c++) {
    expect(decoder, *c, VAMP_INVALID, "The audio cannot be read: the decoder failed on it");
  }
  expect(decoder, '7', VAMP_INVALID, "????????");
  vampd_decoder_stop(decoder);
}

static void test_system_calls(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  if (!vampd_decoder_facts(decoder).filtered) {
    vampd_decoder_stop(decoder);
    skip();
  }
  expect(decoder, 't', VAMP_INVALID, "opened 0, wrote 0, executes 0");
  expect(decoder, 's', VAMP_INVALID, "the decoder failed on it");
  expect(decoder, 'f', VAMP_INVALID, "the decoder failed on it");
  vampd_decoder_stop(decoder);
}

static void test_memory(void **state) {
  (void)state;
  if (SANITIZED) {
    skip(); /* there it has gigabytes */
  }
  struct vampd_decoder *decoder = open_decoder();
  expect(decoder, 'm', VAMP_MEMORY, "no more");
  vampd_decoder_stop(decoder);
}

struct worker {
  pthread_t thread;
  struct vampd_decoder *decoder;
  char what;
  int status;
  struct vamp_error error;
  double seconds;
};

static void *work(void *argument) {
  struct worker *worker = argument;
  double started = vampd_now();
  worker->status = order(worker->decoder, worker->what, &worker->error);
  worker->seconds = vampd_now() - started;
  return NULL;
}

static struct worker *start_worker(struct vampd_decoder *decoder, char what) {
  struct worker *worker = calloc(1, sizeof *worker);
  assert_non_null(worker);
  worker->decoder = decoder;
  worker->what = what;
  assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
  return worker;
}

/* One sleeps, one is busy: both are ended in time, and nobody waits for them. */
static void test_time(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  struct worker *workers[] = {start_worker(decoder, 'h'), start_worker(decoder, 'b')};
  double started = vampd_now();
  struct vamp_error error;
  for (int i = 0; i < 10; i++) {
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  assert_true(vampd_now() - started < 1.5);
  for (int i = 0; i < 2; i++) {
    pthread_join(workers[i]->thread, NULL);
    assert_int_equal(workers[i]->status, VAMP_INVALID);
    assert_non_null(
        strstr(workers[i]->error.message, "The audio cannot be read: decoding it takes too long"));
    assert_true(workers[i]->seconds > 0.9 && workers[i]->seconds < 4);
    free(workers[i]);
  }
  assert_int_equal(count_children(vampd_decoder_facts(decoder).process), 0);
  vampd_decoder_stop(decoder);
}

/* ---- the decoder itself ---------------------------------------------------------------------------------
 */

static void test_a_decoder_that_dies_is_replaced(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t first = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(kill(first, SIGKILL), 0);
  assert_int_equal(order(decoder, '.', &error), 0);
  pid_t second = vampd_decoder_facts(decoder).process;
  assert_int_not_equal(first, second);
  /* Once more, while it decodes. */
  struct worker *worker = start_worker(decoder, 'w');
  while (count_children(second) == 0) {
    usleep(1000);
  }
  assert_int_equal(kill(second, SIGKILL), 0);
  pthread_join(worker->thread, NULL);
  assert_int_equal(worker->status, 0);
  assert_int_not_equal(vampd_decoder_facts(decoder).process, second);
  free(worker);
  assert_int_equal(count_children(getpid()), 1);
  vampd_decoder_stop(decoder);
  assert_int_equal(count_children(getpid()), 0);
}

/* It is stopped, as by a debugger: who waits loses patience with it, and the clip is decoded by the next. */
static void test_a_decoder_that_does_nothing_is_replaced(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t first = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(kill(first, SIGSTOP), 0);
  assert_int_equal(order(decoder, '.', &error), 0);
  assert_int_not_equal(vampd_decoder_facts(decoder).process, first);
  vampd_decoder_stop(decoder);
}

/* What ends the daemon must leave the decoder to it. */
static void test_signals_of_the_daemon(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(kill(process, numbers[i]), 0);
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  assert_int_equal(vampd_decoder_facts(decoder).process, process);
  vampd_decoder_stop(decoder);
}

/* The daemon is killed: the decoder and what it decodes go with it. */
static void test_the_daemon_dies(void **state) {
  (void)state;
  int ends[2];
  assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* who loses its parent comes here */
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  pid_t daemon = fork();
  if (daemon == 0) {
    struct vampd_decoder *decoder = NULL;
    if (vampd_decoder_start(&VAMPD_DECODER_PATIENCE, &decoder, NULL) != 0) {
      _exit(1);
    }
    pid_t process = vampd_decoder_facts(decoder).process;
    ssize_t written = write(ends[1], &process, sizeof process);
    (void)written;
    order(decoder, 'h', NULL);
    _exit(0);
  }
  pid_t process = 0;
  assert_int_equal(read(ends[0], &process, sizeof process), sizeof process);
  while (count_children(process) == 0) {
    usleep(1000);
  }
  assert_int_equal(kill(daemon, SIGKILL), 0);
  assert_int_equal(waitpid(daemon, NULL, 0), daemon);
  for (int i = 0; count_children(getpid()) > 0 && i < 5000; i++) {
    waitpid(-1, NULL, WNOHANG);
    usleep(1000);
  }
  assert_int_equal(count_children(getpid()), 0);
  close(ends[0]);
  close(ends[1]);
}

static void *decode_many(void *argument) {
  struct worker *worker = argument;
  for (int i = 0; i < 125; i++) {
    struct vamp_audio audio = {0};
    struct bytes wav = fixture_wav(36 + 2000, 2000, 1, 44100, 1000);
    memset(wav.data + 44, worker->what + i, 2000);
    int status = vampd_decoder_read(worker->decoder, wav.data, wav.size, "x", NULL, &audio, &worker->error);
    int16_t value;
    memcpy(&value, wav.data + 44, sizeof value);
    if (status != 0 || audio.frames != 1000 || audio.samples[999] != (float)value / 32768) {
      worker->status++;
    }
    vamp_audio_free(&audio);
    free(wav.data);
  }
  return NULL;
}

/* A thousand clips by eight threads: each gets its own samples, and nothing is left behind. */
static void test_a_thousand_clips(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(order(decoder, '.', &error), 0);
  usleep(100000); /* it answers before it has closed all of a clip */
  int here = count_descriptors(getpid()), there = count_descriptors(process);
  long memory = resident_kib(process);
  struct worker workers[8];
  for (int i = 0; i < 8; i++) {
    workers[i] = (struct worker){.decoder = decoder, .what = (char)(i * 16)};
    assert_int_equal(pthread_create(&workers[i].thread, NULL, decode_many, &workers[i]), 0);
  }
  for (int i = 0; i < 8; i++) {
    pthread_join(workers[i].thread, NULL);
    assert_int_equal(workers[i].status, 0);
  }
  usleep(100000);
  assert_int_equal(count_descriptors(getpid()), here);
  assert_int_equal(count_descriptors(process), there);
  assert_int_equal(count_children(process), 0);
  assert_true(SANITIZED || resident_kib(process) - memory < 512);
  assert_int_equal(vampd_decoder_facts(decoder).process, process);
  vampd_decoder_stop(decoder);
}

/* More at once than the decoder takes: they wait for each other. */
static void test_a_crowd(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  struct worker *workers[VAMPD_DECODER_CLIPS + 36];
  for (int i = 0; i < VAMPD_DECODER_CLIPS + 36; i++) {
    workers[i] = start_worker(decoder, '.');
  }
  for (int i = 0; i < VAMPD_DECODER_CLIPS + 36; i++) {
    pthread_join(workers[i]->thread, NULL);
    assert_int_equal(workers[i]->status, 0);
    free(workers[i]);
  }
  vampd_decoder_stop(decoder);
}

/* ---- where no filter is to be had ------------------------------------------------------------------------
 */

/* As in a container that forbids it. */
static bool forbid_filters(void) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
  bool done = context && seccomp_rule_add(context, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 0) == 0 &&
              seccomp_load(context) == 0;
  seccomp_release(context);
  return done;
}

/* In a process of its own; returns how many things were wrong. */
static int decode_without_filter(int log) {
  dup2(log, STDERR_FILENO);
  struct vampd_decoder *decoder = NULL;
  struct vamp_error error = {0};
  if (!forbid_filters() || vampd_decoder_start(&SHORT, &decoder, &error) != 0) {
    return 100;
  }
  int wrong = vampd_decoder_facts(decoder).filtered;
  wrong += order(decoder, '.', &error) != 0;
  wrong += order(decoder, 'c', &error) != VAMP_INVALID;
  wrong += order(decoder, 's', &error) != VAMP_INVALID || !strstr(error.message, "a socket: 0");
  wrong += order(decoder, 't', &error) != VAMP_INVALID || !strstr(error.message, "opened 0, wrote 0");
  wrong += order(decoder, 'b', &error) != VAMP_INVALID || !strstr(error.message, "takes too long");
  kill(vampd_decoder_facts(decoder).process, SIGKILL);
  wrong += order(decoder, '.', &error) != 0;
  vampd_decoder_stop(decoder);
  return wrong;
}

static void test_without_a_filter(void **state) {
  (void)state;
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  pid_t process = fork();
  if (process == 0) {
    _exit(decode_without_filter(ends[1]));
  }
  close(ends[1]);
  char log[8192] = "";
  size_t size = 0;
  for (ssize_t got; size < sizeof log - 1 && (got = read(ends[0], log + size, sizeof log - 1 - size)) > 0;) {
    size += (size_t)got;
  }
  log[size] = '\0';
  close(ends[0]);
  int status;
  assert_int_equal(waitpid(process, &status, 0), process);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  const char *line = strstr(log, "refuses to filter system calls");
  assert_non_null(line);
  assert_null(strstr(line + 1, "refuses to filter system calls")); /* once, also after a second start */
}

/* A shell that calls it by hand is told so. */
static void test_the_argument_by_hand(void **state) {
  (void)state;
  pid_t process = fork();
  if (process == 0) {
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDERR_FILENO);
    dup2(nothing, 3);
    execl("/proc/self/exe", "vampd", VAMPD_DECODER_ARGUMENT, (char *)NULL);
    _exit(1);
  }
  int status;
  assert_int_equal(waitpid(process, &status, 0), process);
  assert_int_equal(WEXITSTATUS(status), 2);
}

int main(int argc, char **argv) {
  int code;
  if (vampd_decoder_main(argc, argv, decode, &code)) {
    return code;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_every_format, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_what_is_cut_or_damaged, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_corpus),
      cmocka_unit_test(test_claims),
      cmocka_unit_test_setup_teardown(test_an_hour_in_half_a_megabyte, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(test_a_leaking_header, fixture_setup, fixture_teardown),
      cmocka_unit_test(test_crashes),
      cmocka_unit_test(test_lies),
      cmocka_unit_test(test_system_calls),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_time),
      cmocka_unit_test(test_a_decoder_that_dies_is_replaced),
      cmocka_unit_test(test_a_decoder_that_does_nothing_is_replaced),
      cmocka_unit_test(test_signals_of_the_daemon),
      cmocka_unit_test(test_the_daemon_dies),
      cmocka_unit_test(test_a_thousand_clips),
      cmocka_unit_test(test_a_crowd),
      cmocka_unit_test(test_without_a_filter),
      cmocka_unit_test(test_the_argument_by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
