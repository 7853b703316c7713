{{/* Name of the chart, for labels. */}}
{{- define "api-server.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the objects. Kubernetes appends hashes to it, so it stays well under 63 characters. */}}
{{- define "api-server.fullname" -}}
{{- $name := include "api-server.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- end -}}
{{- $full | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "api-server.selectorLabels" -}}
app.kubernetes.io/name: {{ include "api-server.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "api-server.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "api-server.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: qna
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Labels by which other objects find the pods; the component keeps the test's pod out. */}}
{{- define "api-server.podSelector" -}}
{{ include "api-server.selectorLabels" . }}
app.kubernetes.io/component: api
{{- end -}}

{{- define "api-server.image" -}}
{{- $name := .Values.image.repository -}}
{{- if .Values.image.registry }}{{- $name = printf "%s/%s" .Values.image.registry $name }}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "api-server.serviceAccountName" -}}
{{- default (ternary (include "api-server.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{/* A number as Kubernetes wants it in a string: Helm reads every number as a float. */}}
{{- define "api-server.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{- define "api-server.claimName" -}}
{{- default (include "api-server.fullname" .) .Values.persistence.existingClaim -}}
{{- end -}}

{{- define "api-server.modelHostUrl" -}}
{{- $namespace := default .Release.Namespace .Values.modelHost.namespace -}}
{{- default (printf "http://%s-direct.%s.svc" .Values.modelHost.name $namespace) .Values.modelHost.url -}}
{{- end -}}

{{/* Where each pod of that InferenceService has an address of its own; empty where the Service alone is asked. */}}
{{- define "api-server.modelHostPodsUrl" -}}
{{- if and .Values.modelHost.resolve (not .Values.modelHost.url) -}}
{{- printf "http://%s-pods.%s.svc:8080" .Values.modelHost.name (default .Release.Namespace .Values.modelHost.namespace) -}}
{{- end -}}
{{- end -}}

{{/* Secret with the key of the one model host, empty where none is sent. */}}
{{- define "api-server.modelHostKey" -}}
{{- if and .Values.modelHost.auth.enabled (not .Values.models) -}}
{{- default (ternary "" (printf "%s-key" .Values.modelHost.name) (ne .Values.modelHost.url "")) .Values.modelHost.auth.existingSecret -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the chats are kept by a database server, so that there may be several pods. */}}
{{- define "api-server.onServer" -}}
{{- if .Values.database.existingSecret }}true{{ end -}}
{{- end -}}

{{/* Number of pods, empty where the manifest leaves it to an autoscaler, which then no upgrade and no rollback disturbs. Only a manifest after one without the
number may leave it out: Helm removes what the one before had, and Kubernetes sets 1 until the autoscaler looks. So where the Deployment's manifest has the number, the
next has it, too, as it is. An annotation says which; charts that wrote none had it. */}}
{{- define "api-server.replicas" -}}
{{- if or .Values.autoscaling.enabled .Values.autoscaling.keda.enabled -}}
{{- $there := default dict (lookup "apps/v1" "Deployment" .Release.Namespace (include "api-server.fullname" .)) -}}
{{- if ne (dig "metadata" "annotations" "qna/replicas-in-manifest" "true" $there) "false" -}}
{{- dig "spec" "replicas" "" $there -}}
{{- end -}}
{{- else -}}
{{- .Values.replicas -}}
{{- end -}}
{{- end -}}

{{/* Not empty where the SQLite file lies in a claim. */}}
{{- define "api-server.usesClaim" -}}
{{- if and .Values.persistence.enabled (not (include "api-server.onServer" .)) }}true{{ end -}}
{{- end -}}

{{/* The Secret with the first keys that the chart makes where it is told of no other. */}}
{{- define "api-server.ownSecret" -}}
{{- printf "%s-keys" (include "api-server.fullname" .) -}}
{{- end -}}

{{/* Name of the Secret with the first keys. */}}
{{- define "api-server.keysSecret" -}}
{{- default (include "api-server.ownSecret" .) .Values.auth.existingSecret -}}
{{- end -}}

{{/* Not empty where the chart makes that Secret itself. */}}
{{- define "api-server.makesKeys" -}}
{{- if and .Values.auth.enabled (not .Values.auth.existingSecret) }}true{{ end -}}
{{- end -}}

{{/* Where one of the first keys stands, as in a container's environment: (list . "admin-key"). */}}
{{- define "api-server.keyRef" -}}
secretKeyRef:
  name: {{ include "api-server.keysSecret" (index . 0) }}
  key: {{ index . 1 }}
{{- end -}}

{{/* The port of the receiver of spans. */}}
{{- define "api-server.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint -}}
{{- $parts := splitList ":" $url.host -}}
{{- if gt (len $parts) 1 }}{{ last $parts }}{{ else }}{{ ternary "443" "80" (eq $url.scheme "https") }}{{ end -}}
{{- end -}}

{{- define "api-server.databaseEnv" -}}
- name: API_DATABASE_URL
{{- if include "api-server.onServer" . }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.secretKey }}
{{- else }}
  value: sqlite:////data/chats.db
{{- end }}
{{- end -}}

{{/* Environment of the API server. */}}
{{- define "api-server.env" -}}
{{- if .Values.models -}}
- name: API_MODELS_FILE
  value: /etc/qna/models.yaml
{{- else -}}
- name: API_MODEL_HOST_URL
  value: {{ include "api-server.modelHostUrl" . | quote }}
{{- with include "api-server.modelHostPodsUrl" . }}
- name: API_MODEL_HOST_PODS_URL
  value: {{ . | quote }}
{{- end }}
{{- with include "api-server.modelHostKey" . }}
- name: API_MODEL_HOST_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.modelHost.auth.secretKey }}
{{- end }}
{{- end }}
{{ include "api-server.databaseEnv" . }}
{{- if include "api-server.onServer" . }}
- name: API_PEERS_URL
  value: {{ printf "http://%s-pods.%s.svc:8000" (include "api-server.fullname" .) .Release.Namespace }}
{{- end }}
{{- if .Values.auth.enabled }}
- name: API_AUTH
  value: "on"
- name: API_OPEN_DOCS
  value: {{ ternary "on" "off" .Values.auth.openDocs | quote }}
- name: API_ADMIN_KEY
  valueFrom:
    {{- include "api-server.keyRef" (list . .Values.auth.adminKeyKey) | nindent 4 }}
- name: API_METRICS_KEY
  valueFrom:
    {{- include "api-server.keyRef" (list . .Values.auth.metricsKeyKey) | nindent 4 }}
{{- end }}
{{- if .Values.limits.existingSecret }}
- name: API_LIMITS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .Values.limits.existingSecret }}
      key: {{ .Values.limits.secretKey }}
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
- name: API_{{ $key | snakecase | upper }}
  value: {{ include "api-server.text" $value | quote }}
{{- end }}
{{- end }}
{{- if .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.tracing.endpoint | quote }}
- name: API_TRACES_RATIO
  value: {{ .Values.tracing.sampleRatio | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Away from GPU nodes where possible; with a claim beside the pod that is being replaced, because the
volume is on its node. */}}
{{- define "api-server.affinity" -}}
{{- if .Values.affinity -}}
{{- toYaml .Values.affinity -}}
{{- else -}}
nodeAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      preference:
        matchExpressions:
          - key: nvidia.com/gpu.present
            operator: DoesNotExist
{{- if include "api-server.usesClaim" . }}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "api-server.podSelector" . | nindent 10 }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "api-server.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "api-server.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "api-server.egressToDns" -}}
- ports:
    {{- range .Values.networkPolicy.dns.ports }}
    - port: {{ . }}
      protocol: UDP
    - port: {{ . }}
      protocol: TCP
    {{- end }}
  {{- with .Values.networkPolicy.dns.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "api-server.egressToDatabase" -}}
- ports:
    - port: {{ .Values.database.port }}
      protocol: TCP
  {{- with .Values.database.peers }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Refuses values that cannot work, with a sentence that says what to change. */}}
{{- define "api-server.validate" -}}
{{- $drain := .Values.config.drainTimeoutS -}}
{{- if kindIs "invalid" $drain }}{{- fail "config.drainTimeoutS must be set: the pod's grace period is checked against it" }}{{- end -}}
{{- $farewell := 10 -}}{{/* FAREWELL_S of api/__main__.py, which is also the time that uvicorn gets to close connections */}}
{{- $database := .Values.config.databaseTimeoutS -}}
{{- if kindIs "invalid" $database }}{{- $database = 5 }}{{- end -}}{{/* database_timeout_s of api/settings.py */}}
{{- $spans := 2 -}}{{/* CLOSE_S of api/spans.py */}}
{{- $traced := ne .Values.tracing.endpoint "" -}}
{{- $least := addf .Values.preStopSeconds $drain $farewell $database (ternary $spans 0 $traced) -}}
{{- if lt (float64 .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %v, but stopping takes up to %v s: preStopSeconds %v + config.drainTimeoutS %v + %d for the last errors + config.databaseTimeoutS %v%s; raise it or lower those" (include "api-server.text" .Values.terminationGracePeriodSeconds) (include "api-server.text" $least) (include "api-server.text" .Values.preStopSeconds) (include "api-server.text" $drain) $farewell (include "api-server.text" $database) (ternary (printf " + %d for the last spans" $spans) "" $traced)) -}}
{{- end -}}
{{- if not (include "api-server.onServer" .) -}}
{{- $file := "the chats are in a SQLite file, which has room for one pod: set database.existingSecret to the Secret with a PostgreSQL address" -}}
{{- if or .Values.autoscaling.enabled .Values.autoscaling.keda.enabled -}}
{{- fail (printf "%s is true, but %s, or leave autoscaling off" (ternary "autoscaling.enabled" "autoscaling.keda.enabled" .Values.autoscaling.enabled) $file) -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, but %s, or leave it at 1" (int .Values.replicas) $file) -}}
{{- end -}}
{{- end -}}
{{- $claims := and (not (include "api-server.onServer" .)) .Values.persistence.enabled (not .Values.persistence.existingClaim) -}}
{{- if and .Release.IsUpgrade (not $claims) -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "api-server.fullname" .) -}}
{{- if and $claim (ne (dig "metadata" "annotations" "helm.sh/resource-policy" "" $claim) "keep") -}}
{{- fail (printf "database.existingSecret, persistence.existingClaim or persistence.enabled=false would delete the claim %s with the chats in its SQLite file: upgrade once with persistence.keep=true first, or delete the claim" (include "api-server.fullname" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled .Values.autoscaling.keda.enabled -}}
{{- fail "autoscaling.enabled and autoscaling.keda.enabled would both set the number of pods: keep one" -}}
{{- end -}}
{{- if and (or .Values.autoscaling.enabled .Values.autoscaling.keda.enabled) (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- /* KEDA's has the same name, so that it can take the chart's over. The other way round Helm would take KEDA's for its own, and lose it with the ScaledObject. */ -}}
{{- $there := lookup "autoscaling/v2" "HorizontalPodAutoscaler" .Release.Namespace (include "api-server.fullname" .) -}}
{{- range dig "metadata" "ownerReferences" (list) (default dict $there) -}}
{{- if eq .kind "ScaledObject" -}}
{{- fail (printf "autoscaling.enabled is true, but the HorizontalPodAutoscaler %s that is there belongs to KEDA's ScaledObject and would go with it: upgrade once with both autoscalers off and replicas as many as there are pods, then with autoscaling.enabled" (include "api-server.fullname" $)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $most := .Values.config.maxInFlight -}}
{{- if kindIs "invalid" $most }}{{- $most = 256 }}{{- end -}}{{/* max_in_flight of api/settings.py */}}
{{- if and .Values.autoscaling.keda.enabled (ge (int .Values.autoscaling.keda.requestsPerPod) (int $most)) -}}
{{- fail (printf "autoscaling.keda.requestsPerPod is %d, but a pod answers at most %d at once (config.maxInFlight): it would be full before another pod is wanted" (int .Values.autoscaling.keda.requestsPerPod) (int $most)) -}}
{{- end -}}
{{- if and .Values.modelHost.namespace (not .Values.modelHost.url) .Values.modelHost.auth.enabled (not .Values.modelHost.auth.existingSecret) -}}
{{- fail (printf "modelHost.namespace is %s, whose Secret %s-key cannot be read from here: copy it into this namespace and name the copy in modelHost.auth.existingSecret" .Values.modelHost.namespace .Values.modelHost.name) -}}
{{- end -}}
{{- $own := include "api-server.ownSecret" . -}}
{{- if and .Values.auth.enabled (eq .Values.auth.existingSecret $own) -}}
{{- fail (printf "auth.existingSecret is %s, the name of the Secret that the chart makes itself and deletes once another is named: copy the keys into a Secret of another name, and name that" $own) -}}
{{- end -}}
{{- if eq .Values.auth.adminKeyKey .Values.auth.metricsKeyKey -}}
{{- fail (printf "auth.adminKeyKey and auth.metricsKeyKey are both %s: Prometheus would hold the administrator's key" .Values.auth.adminKeyKey) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs at least one name in ingress.hosts" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs the Gateway in httpRoute.parentRefs" -}}
{{- end -}}
{{- include "api-server.validateModels" . -}}
{{- include "api-server.validateStreams" . -}}
{{- include "api-server.validatePurge" . -}}
{{- include "api-server.validateMetrics" . -}}
{{- end -}}
