/* CUDA's vector types, with CUDA's alignments: a float4 that is not at a multiple of 16 bytes is a fault. */
#ifndef EMULATOR_VECTOR_H
#define EMULATOR_VECTOR_H

#define EMULATOR_VECTOR2(type, name, alignment)                                                              \
  struct alignas(alignment) name##2 {                                                                        \
    type x, y;                                                                                               \
  };                                                                                                         \
  static inline name##2 make_##name##2(type x, type y) {                                                     \
    return {x, y};                                                                                           \
  }
#define EMULATOR_VECTOR3(type, name)                                                                         \
  struct name##3 {                                                                                           \
    type x, y, z;                                                                                            \
  };                                                                                                         \
  static inline name##3 make_##name##3(type x, type y, type z) {                                             \
    return {x, y, z};                                                                                        \
  }
#define EMULATOR_VECTOR4(type, name, alignment)                                                              \
  struct alignas(alignment) name##4 {                                                                        \
    type x, y, z, w;                                                                                         \
  };                                                                                                         \
  static inline name##4 make_##name##4(type x, type y, type z, type w) {                                     \
    return {x, y, z, w};                                                                                     \
  }

EMULATOR_VECTOR2(float, float, 8)
EMULATOR_VECTOR3(float, float)
EMULATOR_VECTOR4(float, float, 16)
EMULATOR_VECTOR2(int, int, 8)
EMULATOR_VECTOR3(int, int)
EMULATOR_VECTOR4(int, int, 16)
EMULATOR_VECTOR2(unsigned, uint, 8)
EMULATOR_VECTOR3(unsigned, uint)
EMULATOR_VECTOR4(unsigned, uint, 16)
EMULATOR_VECTOR2(double, double, 16)
EMULATOR_VECTOR2(unsigned short, ushort, 4)
EMULATOR_VECTOR4(unsigned short, ushort, 8)
EMULATOR_VECTOR4(unsigned char, uchar, 4)
EMULATOR_VECTOR2(long long, longlong, 16)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned width = 1, unsigned height = 1, unsigned depth = 1)
      : x(width), y(height), z(depth) {
  }
};

#endif
