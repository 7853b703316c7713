{{/* Name of the chart, for labels. */}}
{{- define "model-host.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the objects. KServe appends "-predictor" and a hash to it, so it stays well under 63 characters. */}}
{{- define "model-host.fullname" -}}
{{- $name := include "model-host.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "model-host.selectorLabels" -}}
app.kubernetes.io/name: {{ include "model-host.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "model-host.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "model-host.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: qna
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels by which other objects find the predictor's pods; the component keeps the test's pod out. */}}
{{- define "model-host.podSelector" -}}
{{ include "model-host.selectorLabels" . }}
app.kubernetes.io/component: predictor
{{- end -}}

{{/* The same for Services. Some networks (Amazon's VPC CNI) open a Service's address where its selector holds the label that the callers'
NetworkPolicy names. */}}
{{- define "model-host.serviceSelector" -}}
{{ include "model-host.podSelector" . }}
serving.kserve.io/inferenceservice: {{ include "model-host.fullname" . }}
{{- end -}}

{{- define "model-host.testSelector" -}}
{{ include "model-host.selectorLabels" . }}
app.kubernetes.io/component: test
{{- end -}}

{{- define "model-host.image" -}}
{{- $name := .Values.image.repository -}}
{{- if .Values.image.registry }}{{- $name = printf "%s/%s" .Values.image.registry $name }}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "model-host.serviceAccountName" -}}
{{- default (ternary (include "model-host.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* "true" when the model is in /mnt/models, because KServe or a claim brings it there. */}}
{{- define "model-host.mountsModel" -}}
{{- if or .Values.model.storageUri (include "model-host.claim" .) }}true{{ end -}}
{{- end -}}

{{/* "true" when the model that is bundled in the image is served, as far as values say: an image of one's own may bundle another. */}}
{{- define "model-host.servesBundledModel" -}}
{{- $other := include "model-host.mountsModel" . -}}
{{- range .Values.extraEnv }}{{- if eq .name "MODEL" }}{{- $other = "true" }}{{- end }}{{- end -}}
{{- if not $other }}true{{ end -}}
{{- end -}}

{{- define "model-host.modelName" -}}
{{- $default := ternary "qna-demo" (include "model-host.fullname" .) (eq (include "model-host.servesBundledModel" .) "true") -}}
{{- default $default .Values.model.name -}}
{{- end -}}

{{/* A number as Kubernetes wants it in a string: Helm reads every number as a float. */}}
{{- define "model-host.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The port of the receiver of spans. */}}
{{- define "model-host.tracingPort" -}}
{{- include "model-host.portOf" .Values.tracing.endpoint -}}
{{- end -}}

{{/* The Secret with the key that the chart makes where it is told of no other. */}}
{{- define "model-host.ownSecret" -}}
{{- printf "%s-key" (include "model-host.fullname" .) -}}
{{- end -}}

{{/* Where the key stands that callers must send. */}}
{{- define "model-host.keyRef" -}}
name: {{ default (include "model-host.ownSecret" .) .Values.auth.existingSecret }}
key: {{ .Values.auth.secretKey }}
{{- end -}}

{{/* Environment of the model host. */}}
{{- define "model-host.env" -}}
- name: MODEL_HOST_MODEL_NAME
  value: {{ include "model-host.modelName" . | quote }}
{{- if include "model-host.mountsModel" . }}
- name: MODEL
  value: /mnt/models
{{- end }}
{{- if .Values.auth.enabled }}
- name: MODEL_HOST_API_KEY
  valueFrom:
    secretKeyRef:
      {{- include "model-host.keyRef" . | nindent 6 }}
- name: MODEL_HOST_TRUST_BATCHER
  value: {{ .Values.batcher.enabled | quote }}
{{- end }}
{{- with .Values.model.storageUri }}
- name: STORAGE_URI
  value: {{ . | quote }}
{{- end }}
{{- with .Values.model.hubTokenSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: HF_TOKEN
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
- name: MODEL_HOST_{{ $key | snakecase | upper }}
  value: {{ include "model-host.text" $value | quote }}
{{- end }}
{{- end }}
{{- if and .Values.gpu.enabled (kindIs "invalid" .Values.config.device) }}
- name: MODEL_HOST_DEVICE
  value: cuda
{{- end }}
{{- if kindIs "invalid" .Values.config.threads }}
- name: MODEL_HOST_THREADS
  valueFrom:
    resourceFieldRef:
      containerName: kserve-container
      resource: limits.cpu
{{- end }}
{{- if .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.tracing.endpoint | quote }}
- name: MODEL_HOST_TRACES_RATIO
  value: {{ .Values.tracing.sampleRatio | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* CPU and memory as given, and the GPUs. */}}
{{- define "model-host.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- if .Values.gpu.enabled -}}
{{- $gpus := dict .Values.gpu.resourceName (toString .Values.gpu.count) -}}
{{- $_ := set $resources "requests" (merge (deepCopy $gpus) (default (dict) $resources.requests)) -}}
{{- $_ := set $resources "limits" (merge (deepCopy $gpus) (default (dict) $resources.limits)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "model-host.nodeSelector" -}}
{{- $labels := deepCopy .Values.nodeSelector -}}
{{- if .Values.gpu.enabled }}{{- $labels = merge $labels .Values.gpu.nodeSelector }}{{- end -}}
{{- with $labels }}{{- toYaml . }}{{- end -}}
{{- end -}}

{{- define "model-host.tolerations" -}}
{{- $taints := .Values.tolerations -}}
{{- if .Values.gpu.enabled }}{{- $taints = concat .Values.gpu.tolerations $taints }}{{- end -}}
{{- with $taints }}{{- toYaml . }}{{- end -}}
{{- end -}}

{{- define "model-host.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "model-host.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Refuses values that cannot work, with a sentence that says what to change. */}}
{{- define "model-host.validate" -}}
{{- $agent := ternary 30 0 .Values.batcher.enabled -}}
{{- $closing := 5 -}}{{/* CLOSING_S of model/server.py */}}
{{- $drain := .Values.config.drainTimeoutS -}}
{{- if kindIs "invalid" $drain }}{{- fail "config.drainTimeoutS must be set: the pod's grace period is checked against it" }}{{- end -}}
{{- $spans := 2 -}}{{/* CLOSE_S of model/spans.py */}}
{{- $traced := ne .Values.tracing.endpoint "" -}}
{{- $least := addf .Values.preStopSeconds $drain $closing $agent (ternary $spans 0 $traced) -}}
{{- if lt (float64 .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %v, but stopping takes up to %v s: preStopSeconds %v + config.drainTimeoutS %v + %d for the last errors + %d for KServe's agent%s; raise it or lower those" (include "model-host.text" .Values.terminationGracePeriodSeconds) (include "model-host.text" $least) (include "model-host.text" .Values.preStopSeconds) (include "model-host.text" $drain) $closing $agent (ternary (printf " + %d for the last spans" $spans) "" $traced)) -}}
{{- end -}}
{{- $own := include "model-host.ownSecret" . -}}
{{- if and .Values.auth.enabled (eq .Values.auth.existingSecret $own) -}}
{{- fail (printf "auth.existingSecret is %s, the name of the Secret that the chart makes itself and deletes once another is named: copy the key into a Secret of another name, and name that" $own) -}}
{{- end -}}
{{- include "model-host.validateModel" . -}}
{{- if and .Values.gpu.enabled (ne (int .Values.gpu.count) 1) -}}
{{- fail (printf "gpu.count is %d, but must be 1 while gpu.enabled is true: a model host computes on one GPU, so raise replicas for more of them, or set gpu.enabled=false (values-cpu.yaml) to compute on CPUs" (int .Values.gpu.count)) -}}
{{- end -}}
{{- $instances := .Values.config.maxPredictInstances -}}
{{- if kindIs "invalid" $instances }}{{- $instances = 256 }}{{- end -}}{{/* max_predict_instances of model/config.py */}}
{{- if and .Values.batcher.enabled (gt (int .Values.batcher.maxBatchSize) (int $instances)) -}}
{{- fail (printf "batcher.maxBatchSize is %d, but the model host takes at most %d instances in one call (config.maxPredictInstances): every full batch would be refused" (int .Values.batcher.maxBatchSize) (int $instances)) -}}
{{- end -}}
{{- if and (not .Values.gpu.enabled) (hasPrefix "cuda" (toString .Values.config.device)) -}}
{{- fail "config.device is cuda, but gpu.enabled is false: the pod would get no GPU" -}}
{{- end -}}
{{- if and .Values.gpu.enabled .Values.config.quantize (ne (toString .Values.config.quantize) "none") -}}
{{- fail (printf "config.quantize is %s, which is for CPUs, but gpu.enabled is true: unset it, or set gpu.enabled=false (values-cpu.yaml)" (toString .Values.config.quantize)) -}}
{{- end -}}
{{- $sequences := .Values.config.maxNumSeqs -}}
{{- if kindIs "invalid" $sequences }}{{- $sequences = 32 }}{{- end -}}{{/* max_num_seqs of model/config.py */}}
{{- $tokens := .Values.config.maxNumBatchedTokens -}}
{{- if kindIs "invalid" $tokens }}{{- $tokens = 512 }}{{- end -}}{{/* max_num_batched_tokens of model/config.py */}}
{{- if lt (int64 $tokens) (int64 $sequences) -}}
{{- fail (printf "config.maxNumBatchedTokens is %d, but must be at least config.maxNumSeqs (%d): a step computes a token of each" (int64 $tokens) (int64 $sequences)) -}}
{{- end -}}
{{- include "model-host.validateScaling" . -}}
{{- with .Values.deploymentStrategy.rollingUpdate -}}
{{- if and (eq (toString .maxSurge) "0") (eq (toString .maxUnavailable) "0") -}}
{{- fail "deploymentStrategy.rollingUpdate has maxSurge 0 and maxUnavailable 0: no pod could ever be replaced" -}}
{{- end -}}
{{- end -}}
{{- include "model-host.validateMetrics" . -}}
{{- range .Values.extraEnv -}}
{{- if eq .name "PYTHONPATH" }}{{- fail "extraEnv must not set PYTHONPATH: KServe's webhook refuses it" }}{{- end -}}
{{- end -}}
{{- end -}}
