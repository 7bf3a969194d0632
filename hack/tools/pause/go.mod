module novacore.ai/hack/tools/pause

go 1.22
