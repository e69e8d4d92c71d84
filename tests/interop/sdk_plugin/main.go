// The plugin: a data source made with grafana-plugin-sdk-go, whose answers are known beforehand (package frames).
//
// The query's JSON chooses: {"scenario":"alltypes"}; {"error":"text"} makes an error of this refId; {"fail":"text"} fails the
// whole call; {"panic":true} panics in the handler; {"print":BYTES} prints that much to stdout first.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/datasource"
	"github.com/grafana/grafana-plugin-sdk-go/backend/instancemgmt"
	"github.com/grafana/grafana-plugin-sdk-go/backend/log"
	"github.com/grafana/grafana-plugin-sdk-go/backend/resource/httpadapter"

	"dpa.test/sdkplugin/frames"
)

type query struct {
	Scenario string `json:"scenario"`
	Error    string `json:"error"`
	Fail     string `json:"fail"`
	Panic    bool   `json:"panic"`
	Print    int    `json:"print"`
}

type instance struct {
	backend.CallResourceHandler
	uid string
}

func newInstance(_ context.Context, settings backend.DataSourceInstanceSettings) (instancemgmt.Instance, error) {
	return &instance{CallResourceHandler: httpadapter.New(http.HandlerFunc(echo)), uid: settings.UID}, nil
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"method": r.Method, "path": r.URL.Path, "query": r.URL.RawQuery, "headers": r.Header})
}

func (i *instance) CheckHealth(context.Context, *backend.CheckHealthRequest) (*backend.CheckHealthResult, error) {
	details, err := json.Marshal(map[string]string{"uid": i.uid})
	if err != nil {
		return nil, err
	}
	return &backend.CheckHealthResult{Status: backend.HealthStatusOk, Message: "ok", JSONDetails: details}, nil
}

func (i *instance) QueryData(_ context.Context, request *backend.QueryDataRequest) (*backend.QueryDataResponse, error) {
	response := backend.NewQueryDataResponse()
	for _, q := range request.Queries {
		var parsed query
		if err := json.Unmarshal(q.JSON, &parsed); err != nil {
			response.Responses[q.RefID] = backend.ErrDataResponse(backend.StatusBadRequest, err.Error())
			continue
		}
		if parsed.Panic {
			panic("asked to panic")
		}
		if parsed.Fail != "" {
			return nil, backend.DownstreamError(errors.New(parsed.Fail))
		}
		if parsed.Print > 0 {
			fmt.Fprintln(os.Stdout, strings.Repeat("x", parsed.Print))
		}
		response.Responses[q.RefID] = answer(parsed)
	}
	return response, nil
}

func answer(q query) backend.DataResponse {
	if q.Error != "" {
		return backend.ErrDataResponse(backend.StatusBadGateway, q.Error)
	}
	made, err := frames.For(q.Scenario)
	if err != nil {
		return backend.ErrDataResponse(backend.StatusBadRequest, err.Error())
	}
	return backend.DataResponse{Frames: made, Status: backend.StatusOK}
}

func main() {
	if err := datasource.Manage("dpa-sdkplugin-datasource", newInstance, datasource.ManageOpts{}); err != nil {
		log.DefaultLogger.Error("plugin ended", "error", err.Error())
		os.Exit(1)
	}
}
