// The types of CUDA's driver that CUPTI's headers name, so that they compile without CUDA's own. Handles are
// pointers there, too; what is not used by the records that are looked at may be anything.

#ifndef CUDA_TYPES_H
#define CUDA_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define CUDAAPI
#define CUDA_VERSION 13000

typedef int CUdevice;
typedef int CUresult;
typedef unsigned long long CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphNode_st *CUgraphNode;
typedef struct CUgraphExec_st *CUgraphExec;
typedef int CUgraphNodeType;
typedef int CUdevice_attribute;
typedef int CUstreamAttrID;
typedef struct { char bytes[64]; } CUstreamAttrValue;
typedef struct CUaccessPolicyWindow_st CUaccessPolicyWindow;
typedef struct { char bytes[16]; } CUuuid;

#endif
