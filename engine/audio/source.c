/*
 * The bytes of an input.
 *
 * libsndfile can open a path by itself. It does not get to, for three reasons. One way in, for memory
 * and for files, is tested once. A name's ending must not decide how bytes are read: given a path,
 * libsndfile takes a text file called song.gsm for headerless speech. And several kinds of real files
 * are read wrongly or not at all unless it is shown something slightly different from what is there:
 * tags left out, a size that a pipe could not know filled in, a length hidden. So it reads through
 * callbacks, from a window on the bytes.
 *
 * A memory map of the file was rejected: a file that another process shortens would kill the daemon.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "engine/audio/internal.h"

/* What a stream of unknown length is said to be long: beyond any file, and small enough that the
 * decoder's estimates of the number of samples stay within 64 bits. */
#define PRETENDED_LENGTH ((sf_count_t)1 << 40)

static size_t read_file(struct vamp_source *source, uint64_t offset, unsigned char *bytes, size_t count) {
  size_t got = 0;
  while (got < count) {
    ssize_t part = pread(source->descriptor, bytes + got, count - got, (off_t)(offset + got));
    if (part < 0 && errno == EINTR) {
      continue;
    }
    if (part < 0 && source->failure == 0) {
      source->failure = errno;
    }
    if (part <= 0) {
      break;
    }
    got += (size_t)part;
  }
  return got;
}

static void apply_patch(const struct vamp_source *source, uint64_t offset, unsigned char *bytes,
                        size_t count) {
  for (size_t i = 0; i < source->patch.count; i++) {
    uint64_t at = source->patch.offset + i;
    if (at >= offset && at - offset < count) {
      bytes[at - offset] = source->patch.bytes[i];
    }
  }
}

size_t vamp_source_read_at(struct vamp_source *source, uint64_t offset, void *bytes, size_t count) {
  uint64_t size = vamp_source_size(source);
  if (offset >= size) {
    return 0;
  }
  if (count > size - offset) {
    count = (size_t)(size - offset);
  }
  if (source->memory) {
    memcpy(bytes, source->memory + source->begin + offset, count);
  } else {
    count = read_file(source, source->begin + offset, bytes, count);
  }
  apply_patch(source, offset, bytes, count);
  return count;
}

static sf_count_t io_length(void *user) {
  return (sf_count_t)vamp_source_size(user);
}

static sf_count_t io_seek(sf_count_t offset, int whence, void *user) {
  struct vamp_source *source = user;
  sf_count_t size = (sf_count_t)vamp_source_size(source), base = 0;
  if (whence == SEEK_CUR) {
    base = (sf_count_t)source->position;
  } else if (whence == SEEK_END) {
    base = size;
  }
  if (offset < -base || offset > SF_COUNT_MAX - base) {
    return -1;
  }
  source->position = (uint64_t)(base + offset);
  /* The MP3 decoder asks for the length by seeking to the end. Where no header tells it the number of
   * frames it guesses from the length and the first frame's bit rate, and libsndfile stops reading
   * there: of a file with variable bit rate, most could be lost. A length that cannot be reached makes
   * both read on to the real end. */
  if (source->hides_length && whence == SEEK_END && offset == 0) {
    return PRETENDED_LENGTH;
  }
  return base + offset;
}

static sf_count_t io_read(void *bytes, sf_count_t count, void *user) {
  struct vamp_source *source = user;
  if (count <= 0) {
    return 0;
  }
  size_t got = vamp_source_read_at(source, source->position, bytes, (size_t)count);
  source->position += got;
  return (sf_count_t)got;
}

static sf_count_t io_tell(void *user) {
  return (sf_count_t)((struct vamp_source *)user)->position;
}

SF_VIRTUAL_IO vamp_source_io(void) {
  return (SF_VIRTUAL_IO){.get_filelen = io_length, .seek = io_seek, .read = io_read, .tell = io_tell};
}
