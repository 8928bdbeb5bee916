// Ranks documents from Go: go run . HOST:PORT (default localhost:50051). README.md says how to generate pairwirev1.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"example.com/rerank/pairwirev1"
)

// Waits as the server says (grpc-retry-pushback-ms) and sends again: the queue was full, or a server restarts.
const retries = `{"methodConfig": [{
	"name": [{"service": "pairwire.v1.ScoringService"}],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"]}}]}`

func main() {
	address := "localhost:50051"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := rank(address); err != nil {
		found := status.Convert(err) // a sentence that says which field is wrong, and what to do
		fmt.Fprintf(os.Stderr, "%s: %s\n", found.Code(), found.Message())
		os.Exit(1)
	}
}

func rank(address string) error {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := pairwirev1.NewScoringServiceClient(connection)

	// What cannot be done by the deadline is refused at once.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	documents := []string{"A recipe for bread.", "The pull of the moon on the sea.", "Wind makes waves."}
	answer, err := client.Rerank(ctx, &pairwirev1.RerankRequest{
		Query: "What causes ocean tides?", Documents: documents, TopK: proto.Int32(2),
	})
	if err != nil {
		return err
	}
	for _, found := range answer.GetResults() {
		fmt.Printf("%.6f  %s\n", found.GetScore(), documents[found.GetIndex()])
	}
	fmt.Printf("by %s\n", answer.GetModel())
	return nil
}
