module novacore.ai/hack/tools/runtime-wrapper

go 1.22
