{{/* Name of the application. Installations' NetworkPolicies admit the operator by this label: it is not a value. */}}
{{- define "novacore-operator.name" -}}
novacore-operator
{{- end -}}

{{/* Name of the objects. There is one operator per namespace, so the release's name is no part of it. */}}
{{- define "novacore-operator.fullname" -}}
{{- .Values.fullnameOverride | default (include "novacore-operator.name" .) -}}
{{- end -}}

{{/* Name of the token reviewer's role: cluster-scoped, so operators that share a cluster by namespaces need one each. */}}
{{- define "novacore-operator.tokenReviewer" -}}
{{- if .Values.watchNamespaces -}}
novacore-token-reviewer-{{ .Release.Namespace }}
{{- else -}}
novacore-token-reviewer
{{- end -}}
{{- end -}}

{{/* Labels by which objects find the pods. They are immutable: nothing that changes with a version belongs here. */}}
{{- define "novacore-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "novacore-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* The recommended labels. */}}
{{- define "novacore-operator.labels" -}}
{{- with .Values.commonLabels }}
{{- toYaml . }}
{{ end -}}
{{ include "novacore-operator.selectorLabels" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: novacore
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Name of the ServiceAccount. */}}
{{- define "novacore-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "novacore-operator.fullname" .) -}}
{{- else -}}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Reference of the image. */}}
{{- define "novacore-operator.image" -}}
{{- $image := .Values.image -}}
{{- $repository := $image.repository -}}
{{- with $image.registry }}{{ $repository = printf "%s/%s" . $repository }}{{ end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Namespaces whose auth-billing may make TokenReviews, as a JSON list. */}}
{{- define "novacore-operator.installationNamespaces" -}}
{{- .Values.watchNamespaces | default .Values.installationNamespaces | toJson -}}
{{- end -}}

{{/* Rules for a namespace that holds an installation: the operator's own list and the Secrets that users name. */}}
{{- define "novacore-operator.installationRules" -}}
{{- $rbac := .Files.Get "files/rbac.yaml" | fromYaml -}}
{{- toYaml $rbac.installation }}
{{- with .Values.referencedSecrets }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{- toYaml . | nindent 4 }}
  verbs: [get]
{{- end }}
{{- end -}}

{{/* Rules for the operator's own namespace; where the installations' namespaces are known, root keys by name. */}}
{{- define "novacore-operator.ownRules" -}}
{{- $rbac := .Files.Get "files/rbac.yaml" | fromYaml -}}
{{- $namespaces := .Values.watchNamespaces -}}
{{- range $rule := $rbac.ownNamespace }}
{{- if and $namespaces (has "secrets" $rule.resources) }}
{{- $names := list }}
{{- range $namespaces }}{{ $names = append $names (printf "novacore-root-%s" .) }}{{ end }}
{{- $_ := set $rule "resourceNames" $names }}
{{- end }}
{{- end }}
{{- toYaml $rbac.ownNamespace }}
{{- end -}}
