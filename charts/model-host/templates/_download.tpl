{{/* Folder of the fetched model in its claim. Another source, revision or list of files is another folder: running pods keep theirs. */}}
{{- define "model-host.downloadFolder" -}}
{{- with .Values.model.download -}}
{{- $name := regexReplaceAllLiteral "[^a-z0-9.-]+" (base (trimSuffix "/" .source) | lower) "-" -}}
{{- printf "%s-%s" $name (list .source .revision .files | toJson | sha256sum | trunc 12) -}}
{{- end -}}
{{- end -}}

{{/* Claim that the pods read, empty where they read none. */}}
{{- define "model-host.claim" -}}
{{- if .Values.model.download.enabled -}}
{{- default (printf "%s-model" (include "model-host.fullname" .)) .Values.model.download.persistence.existingClaim -}}
{{- else -}}
{{- .Values.model.existingClaim -}}
{{- end -}}
{{- end -}}

{{- define "model-host.claimSubPath" -}}
{{- if .Values.model.download.enabled }}{{ include "model-host.downloadFolder" . }}{{ else }}{{ .Values.model.existingClaimSubPath }}{{ end -}}
{{- end -}}

{{- define "model-host.downloadSelector" -}}
{{ include "model-host.selectorLabels" . }}
app.kubernetes.io/component: download
{{- end -}}

{{/* As the pods are placed; where none is told, beside those that run, because a ReadWriteOnce volume is on their node. */}}
{{- define "model-host.downloadAffinity" -}}
{{- if .Values.affinity -}}
{{- toYaml .Values.affinity -}}
{{- else if ne .Values.model.download.persistence.accessMode "ReadWriteMany" -}}
podAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "model-host.podSelector" . | nindent 12 }}
{{- end -}}
{{- end -}}

{{/* The port of a URL. */}}
{{- define "model-host.portOf" -}}
{{- $url := urlParse . -}}
{{- $parts := splitList ":" $url.host -}}
{{- if gt (len $parts) 1 }}{{ last $parts }}{{ else }}{{ ternary "443" "80" (eq $url.scheme "https") }}{{ end -}}
{{- end -}}

{{/* Egress rule for a model that is fetched from this address: (list address endpoint-of-the-Hub). Whatever it is, it may redirect to 443. */}}
{{- define "model-host.egressToModel" -}}
{{- $from := ternary (index . 1) (index . 0) (hasPrefix "hf://" (index . 0)) -}}
{{- $ports := list "443" -}}
{{- if regexMatch "^https?://" $from }}{{- $ports = append $ports (include "model-host.portOf" $from) | uniq }}{{- end -}}
- ports:
    {{- range $ports }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
{{- end -}}

{{- define "model-host.egressToDns" -}}
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

{{/* Refuses sources of a model that cannot work. */}}
{{- define "model-host.validateModel" -}}
{{- with .Values.model -}}
{{- $sources := list -}}
{{- if .storageUri }}{{- $sources = append $sources "model.storageUri" }}{{- end -}}
{{- if .existingClaim }}{{- $sources = append $sources "model.existingClaim" }}{{- end -}}
{{- if .download.enabled }}{{- $sources = append $sources "model.download" }}{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "%s both name a model: keep one" (join " and " $sources)) -}}
{{- end -}}
{{- if and .existingClaimSubPath (not .existingClaim) -}}
{{- fail "model.existingClaimSubPath needs model.existingClaim" -}}
{{- end -}}
{{- if and (hasPrefix "hf://" .storageUri) (not (regexMatch "^hf://[^/:]+/[^/:]+(:[^/:]+)?$" .storageUri)) -}}
{{- fail (printf "model.storageUri is %s, but KServe wants hf://ORGANISATION/NAME or hf://ORGANISATION/NAME:COMMIT" .storageUri) -}}
{{- end -}}
{{- if and (not .download.enabled) (or .download.source .download.revision .download.files) -}}
{{- fail "model.download names a model, but model.download.enabled is false: nothing would be fetched, and another model served" -}}
{{- end -}}
{{- if .download.enabled -}}
{{- $source := .download.source -}}
{{- if regexMatch "^https?://" $source -}}
{{- if not .download.files }}{{- fail (printf "model.download.files must name each file of %s with its SHA-256: a web server lists none" $source) }}{{- end -}}
{{- if .download.revision }}{{- fail "model.download.revision is for the Hub (hf://…): a web server has none" }}{{- end -}}
{{- else if not (regexMatch "^hf://[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$" $source) -}}
{{- fail (printf "model.download.source is %q, but must be hf://ORGANISATION/NAME or https://…; model.storageUri takes what else KServe can fetch" $source) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
