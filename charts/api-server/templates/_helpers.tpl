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

{{/* Not empty where the chats are kept by a database server, so that there may be several pods. */}}
{{- define "api-server.onServer" -}}
{{- if .Values.database.existingSecret }}true{{ end -}}
{{- end -}}

{{/* Not empty where the SQLite file lies in a claim. */}}
{{- define "api-server.usesClaim" -}}
{{- if and .Values.persistence.enabled (not (include "api-server.onServer" .)) }}true{{ end -}}
{{- end -}}

{{/* Environment of the API server. */}}
{{- define "api-server.env" -}}
- name: API_MODEL_HOST_URL
  value: {{ include "api-server.modelHostUrl" . | quote }}
- name: API_DATABASE_URL
{{- if include "api-server.onServer" . }}
  valueFrom:
    secretKeyRef:
      name: {{ .Values.database.existingSecret }}
      key: {{ .Values.database.secretKey }}
{{- else }}
  value: sqlite:////data/chats.db
{{- end }}
{{- range $key, $value := .Values.config }}
{{- if not (kindIs "invalid" $value) }}
- name: API_{{ $key | snakecase | upper }}
  value: {{ include "api-server.text" $value | quote }}
{{- end }}
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

{{/* Refuses values that cannot work, with a sentence that says what to change. */}}
{{- define "api-server.validate" -}}
{{- $drain := .Values.config.drainTimeoutS -}}
{{- if kindIs "invalid" $drain }}{{- fail "config.drainTimeoutS must be set: the pod's grace period is checked against it" }}{{- end -}}
{{- $farewell := 10 -}}{{/* FAREWELL_S of api/__main__.py, which is also the time that uvicorn gets to close connections */}}
{{- $database := .Values.config.databaseTimeoutS -}}
{{- if kindIs "invalid" $database }}{{- $database = 5 }}{{- end -}}{{/* database_timeout_s of api/settings.py */}}
{{- $least := addf .Values.preStopSeconds $drain $farewell $database -}}
{{- if lt (float64 .Values.terminationGracePeriodSeconds) $least -}}
{{- fail (printf "terminationGracePeriodSeconds is %v, but stopping takes up to %v s: preStopSeconds %v + config.drainTimeoutS %v + %d for the last errors + config.databaseTimeoutS %v; raise it or lower those" (include "api-server.text" .Values.terminationGracePeriodSeconds) (include "api-server.text" $least) (include "api-server.text" .Values.preStopSeconds) (include "api-server.text" $drain) $farewell (include "api-server.text" $database)) -}}
{{- end -}}
{{- if not (include "api-server.onServer" .) -}}
{{- $file := "the chats are in a SQLite file, which has room for one pod: set database.existingSecret to the Secret with a PostgreSQL address" -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail (printf "autoscaling.enabled is true, but %s, or leave autoscaling off" $file) -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- fail (printf "replicas is %d, but %s, or leave it at 1" (int .Values.replicas) $file) -}}
{{- end -}}
{{- end -}}
{{- if and (include "api-server.onServer" .) .Release.IsUpgrade (not .Values.persistence.existingClaim) -}}
{{- $claim := lookup "v1" "PersistentVolumeClaim" .Release.Namespace (include "api-server.fullname" .) -}}
{{- if and $claim (ne (dig "metadata" "annotations" "helm.sh/resource-policy" "" $claim) "keep") -}}
{{- fail (printf "database.existingSecret would delete the claim %s with the chats in its SQLite file: upgrade once with persistence.keep=true first, or delete the claim" (include "api-server.fullname" .)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- fail (printf "autoscaling.minReplicas %d is more than autoscaling.maxReplicas %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs at least one name in ingress.hosts" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs the Gateway in httpRoute.parentRefs" -}}
{{- end -}}
{{- end -}}
