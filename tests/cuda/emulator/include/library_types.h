/* Names of the types of a matrix's elements. */
#ifndef EMULATOR_LIBRARY_TYPES_H
#define EMULATOR_LIBRARY_TYPES_H

enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16BF = 14 };
typedef cudaDataType_t cudaDataType;

#endif
