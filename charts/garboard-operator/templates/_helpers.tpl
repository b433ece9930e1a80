{{- define "garboard-operator.labels" -}}
app.kubernetes.io/name: garboard-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "garboard-operator.selector" -}}
app.kubernetes.io/name: garboard-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "garboard-operator.name" -}}
{{- if contains "garboard-operator" .Release.Name }}{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}{{ printf "%s-garboard-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The Pod of `helm test` is none of the operator's: no Service leads to it. */}}
{{- define "garboard-operator.testSelector" -}}
app.kubernetes.io/name: garboard-operator-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "garboard-operator.testLabels" -}}
{{ include "garboard-operator.testSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Where the cluster of `helm test` lives: the operator must watch it. */}}
{{- define "garboard-operator.testNamespace" -}}
{{- if .Values.watchNamespaces }}{{ first .Values.watchNamespaces }}{{ else }}{{ .Release.Namespace }}{{ end }}
{{- end }}

{{- define "garboard-operator.image" -}}
{{ required "image.repository: the operator's image is not published, build and push it" .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* For Pods with a token: nothing of them runs as root, writes or gains anything. */}}
{{- define "garboard-operator.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "garboard-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the operator may do with the objects of a cluster, in the namespaces that it watches. */}}
{{- define "garboard-operator.rules" -}}
- apiGroups: [garboard.dev]
  resources: [etcdclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [garboard.dev]
  resources: [etcdclusters/status]
  verbs: [update]
- apiGroups: [garboard.dev]
  resources: [etcdclusters/finalizers]
  verbs: [update]
- apiGroups: [garboard.dev]
  resources: [etcdmembers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [garboard.dev]
  resources: [etcdbackups]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [garboard.dev]
  resources: [etcdbackupschedules, etcdrestores]
  verbs: [get, list, watch]
- apiGroups: [garboard.dev]
  resources: [etcdbackups/status, etcdbackups/finalizers, etcdbackupschedules/status, etcdrestores/status, etcdrestores/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [create]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
